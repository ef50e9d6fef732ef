"""A part that lacks a required method is refused by name, before anything is computed."""

import dataclasses
import inspect

import numpy as np
import pytest

import aejax
from aejax.errors import InputError
from aejax.models import Autoencoder, interfaces
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.registry import missing
from tests.launch import forked
from tests.training import modern, toys

REQUIRED = {
    "Coder": ["decoder", "encoder"],
    "Bottleneck": ["encode"],
    "Likelihood": ["log_prob", "mean"],
    "Corruption": ["__call__"],
    "Penalty": ["__call__"],
    "Target": ["__call__"],
    "Trainable": ["init"],
}


def empty(name: str) -> type:
    """A part of this kind that has nothing of its own."""
    return dataclasses.make_dataclass("Empty", [], bases=(getattr(interfaces, name),))


def test_each_kind_of_part_marks_what_its_docstring_calls_required():
    kinds = {
        name: cls
        for name, cls in vars(interfaces).items()
        if inspect.isclass(cls) and "Required:" in (cls.__doc__ or "")
    }
    assert {name: missing(cls) for name, cls in kinds.items()} == REQUIRED
    for name, methods in REQUIRED.items():
        sentence = inspect.getdoc(kinds[name]).partition("Required:")[2].partition(".")[0]
        assert all(f"`{method}`" in sentence for method in methods)


def test_a_module_or_an_inherited_method_counts():
    assert not missing(modern.Codebook) and not missing(modern.Shifted)  # by `build`
    assert not missing(modern.UnitNorm) and not missing(toys.Boltzmann)

    class Drawn(Plain):
        has_posterior = True

    assert missing(Drawn) == ["posterior"]


@pytest.mark.parametrize(
    ("field", "name"),
    [(name.lower(), name) for name in REQUIRED if name != "Trainable"] + [("", "Trainable")],
)
def test_from_python_a_part_without_its_method_is_one_line(field, name, tmp_path):
    part = empty(name)()
    parts = {"coder": Dense(), "latent_dim": 2} | ({field: part} if field else {})
    config = aejax.Config(model=Autoencoder(**parts) if field else part, duration="1 steps")
    rows, where = np.zeros((8, 3), np.float32), f"config.model{'.' * bool(field)}{field}"
    with pytest.raises(InputError) as caught:
        aejax.Trainer(config, str(tmp_path / "run"), train=rows, test=rows).fit()
    assert str(caught.value) == (
        f"{where}=types:Empty: must have {' and '.join(REQUIRED[name])}"
        " (see docs/how-to/own-part.md)"
    )
    assert not (tmp_path / "run").exists()


def test_a_program_refuses_it_with_2(tmp_path):
    (tmp_path / "my_parts.py").write_text(
        "import dataclasses\nfrom aejax.models.interfaces import Penalty\n\n\n"
        "@dataclasses.dataclass\nclass Whiten(Penalty):\n    weight: float = 1.0\n"
    )
    ran = forked.run(
        "train", "--config.model.penalty=my_parts:Whiten", "--workdir=run", where=tmp_path
    )
    assert ran.returncode == 2 and not (tmp_path / "run").exists()
    assert ran.stderr == (
        "error: config.model.penalty=my_parts:Whiten: must have __call__"
        " (see docs/how-to/own-part.md)\n"
    )

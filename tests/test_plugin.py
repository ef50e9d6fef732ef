"""A part from a package of its own, installed into a fresh environment: `tests/plugin`."""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from aejax import registry
from aejax.errors import InputError
from aejax.models import coders

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parents[1]
SHORT = ["--config.duration=20", "--config.log_every=10", "--config.batch_size=64"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The Python of an environment that has what this one has, and the plugin."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    found = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"])
    paths = [*site.getsitepackages(), str(ROOT)]
    (Path(found.decode().strip()) / "others.pth").write_text("\n".join(paths))
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    target = found.decode().strip()
    source = shutil.copytree(PLUGIN, place.parent / "plugin")  # a build writes beside it
    done = subprocess.run([*words, f"--target={target}", str(source)], capture_output=True)
    if done.returncode:
        pytest.skip(f"pip cannot build here: {done.stderr.decode()[-200:]}")
    return python


def program(python, where: Path, name: str, *words: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [python, "-m", f"launch.{name}", *words],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_plugin_trains_resumes_evaluates_encodes_and_loads(fresh, tmp_path):
    coder = ["--config.model.coder=wavelet", "--config.model.coder.detail=0.25"]
    program(fresh, tmp_path, "train", *coder, *SHORT, "--workdir=run")
    assert '"kind": "wavelet"' in (text := (tmp_path / "run" / "config.json").read_text())
    assert '"distribution": "aejax-wavelet 1.2"' in text and '"detail": 0.25' in text
    said = program(fresh, tmp_path, "train", "--workdir=run", "--config.duration=30")
    assert "going on at step 20 of 30" in said
    program(fresh, tmp_path, "evaluate", "--workdir=run", "--tasks=reconstruction,latent")
    program(fresh, tmp_path, "encode", "--workdir=run", "--out=codes.npz")
    assert np.load(tmp_path / "codes.npz")["z"].shape[1] == 32


@pytest.mark.slow
def test_a_class_of_ones_own_is_named_by_flags(fresh, tmp_path):
    (tmp_path / "mine.py").write_text((PLUGIN / "aejax_wavelet.py").read_text())
    program(fresh, tmp_path, "train", "--config.model.coder=mine:Wavelet", *SHORT, "--workdir=run")
    words = ["--workdir=run", "--parts=mine:Wavelet"]
    said = program(fresh, tmp_path, "train", *words, "--config.duration=30")
    assert "going on at step 20 of 30" in said
    program(fresh, tmp_path, "evaluate", *words, "--tasks=reconstruction")
    with pytest.raises(AssertionError, match=r"mine:Wavelet: is not part of aejax.*--parts=mine"):
        program(fresh, tmp_path, "evaluate", "--workdir=run")


def test_a_class_of_a_script_is_named_by_its_file(monkeypatch):
    monkeypatch.setattr(registry, "_NAMED", {})
    written = "__main__:Wavelet"
    with pytest.raises(InputError, match=r"--parts=FILE\.py:Wavelet for a program"):
        coders.KINDS.find("coder", written)
    registry.use_named("--parts", f"{PLUGIN / 'aejax_wavelet.py'}:Wavelet")
    assert coders.KINDS.find("coder", written).__module__ == "aejax_wavelet"
    with pytest.raises(InputError, match="is not part of aejax"):
        coders.KINDS.find("coder", "__main__:Encoder")

"""Options behind a source's path: what is read, and what is said of those that are not."""

import numpy as np
import pytest
from PIL import Image

from aejax.data.sources import checks, open_source
from aejax.data.sources.checks import Choice
from aejax.errors import InputError

DEFAULTS = {"length": 64, "rate": 0.5, "fit": Choice(("crop", "pad"), "crop"), "label": ""}
FORM = "kind:FILE?length=64"


def read(argument: str) -> tuple[str, dict]:
    return checks.options(argument, FORM, DEFAULTS)


def test_options_have_the_type_of_their_default():
    plain = {"length": 64, "rate": 0.5, "fit": "crop", "label": ""}
    assert read("a file") == ("a file", plain)
    path, values = read("a=b#ü?length=1e2&rate=2&fit=pad&label=a=b %26 50%")
    assert path == "a=b#ü"
    assert values == {"length": 100, "rate": 2.0, "fit": "pad", "label": "a=b & 50%"}
    assert isinstance(values["length"], int)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lenght=3", "no option 'lenght' (there: length, rate, fit, label); accepted: kind:FILE"),
        ("lenght=3", "did you mean length?"),
        ("fit=padd", "fit=padd: must be one of crop, pad; did you mean pad?"),
        ("fit=", "fit=: must be one of crop, pad"),
        ("label=", "label=: is empty"),
        ("length=1&length=2", "length=2: length is given twice"),
        ("length=1&", "no option ''"),
        ("rate=nan", "rate=nan: must be a number above 0"),
        ("length=1.5", "length=1.5: must be a whole number, at least 1"),
    ],
)
def test_what_is_not_accepted_is_named(words, said):
    with pytest.raises(InputError) as caught:
        read(f"file?{words}")
    assert said in str(caught.value)


def test_a_name_with_a_question_mark_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("what?.npz", "rows.npz?x=1"):
        with open(name, "wb") as file:
            np.savez(file, x=np.ones((20, 2), np.float32))
        assert open_source(f"npz:{name}", "all").spec.shape == (2,)
    (tmp_path / "pics?").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "pics?" / "a.png")
    assert open_source("images:pics?", "all").spec.shape == (2, 3, 1)
    # behind the first name that exists: a value may hold a question mark itself
    (tmp_path / "what?").write_text("")
    assert read("what??label=who?")[1]["label"] == "who?"
    with pytest.raises(InputError, match=r"there is no file not\?there"):
        open_source("npz:not?there", "all")


@pytest.mark.parametrize(
    "text", ["digits?x=1", "idx:{0}?x=1", "npz:{0}/rows.npz?x=1", "planted:copy?x=1", "tfds:a?x=1"]
)
def test_sources_without_options_refuse_one(tmp_path, text):
    np.savez(tmp_path / "rows.npz", x=np.ones((20, 2), np.float32))
    with pytest.raises(InputError, match=r"there is no option 'x' \(there: none\); accepted: "):
        open_source(text.format(tmp_path))


def test_a_word_without_a_value_is_an_option_where_its_path_exists(tmp_path):
    (tmp_path / "text").write_text("x" * 100)
    with pytest.raises(InputError, match="length=: must be a whole number"):
        open_source(f"text:{tmp_path}/text?length")

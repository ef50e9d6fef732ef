"""Layouts by rule against the strings that the papers' rules must give."""

import pytest

from aejax.nn.layout import expand, slots

# PAR's rule with P = 5 for the sizes of its paper: layers, string, blocks of attention.
PAR = [
    (12, "affffaffffaffffaffffffff", 4),
    (16, "afffafffafffafffafffafffffffffff", 6),
    (18, "aff" * 7 + "f" * 15, 7),
]


@pytest.mark.parametrize(("layers", "letters", "attention"), PAR)
def test_par_puts_a_fifth_of_the_blocks_evenly_over_two_thirds(layers, letters, attention):
    found = expand(f"par:5:{layers}")
    assert found == letters and found.count("a") == attention
    assert found.rindex("a") < 2 / 3 * len(found)


@pytest.mark.parametrize("layers", range(1, 40))
def test_par_has_its_share_of_attention_and_all_its_blocks(layers):
    for ratio in range(2, 2 * layers + 1):
        found = expand(f"par:{ratio}:{layers}")
        assert len(found) == 2 * layers and found.count("a") == 2 * layers // ratio
        assert set(found) <= set("af") and found[0] == "a"


def test_rules_by_name():
    assert expand("interleaved:3") == "afafaf"
    assert expand("sandwich:0:3") == expand("interleaved:3")
    assert expand("sandwich:2:4") == "aaafafff"  # s^k (sf)^(n-k) f^k
    assert expand("sandwich:6:16") == "aaaaaa" + "af" * 10 + "ffffff"
    assert expand("par:2:3") == "afafaf"[:0] + "aaafff"
    assert expand("wfai") == "wfai"


@pytest.mark.parametrize(
    "layout",
    ["", "afx", "AF", "interleaved", "interleaved:0", "interleaved:a", "interleaved:1:2"]
    + ["sandwich:3:2", "sandwich:1", "par:1:4", "par:9:4", "par:5", "par:-1:4", "par:²:4"],
)
def test_what_is_no_layout_is_refused(layout):
    with pytest.raises(ValueError, match=f"^{layout}: "):
        expand(layout)


def test_brackets_hold_the_candidates_of_a_slot():
    assert slots("[afi]f[wi]") == ("afi", "f", "wi")
    assert slots("par:2:3") == tuple("aaafff")


@pytest.mark.parametrize("layout", ["[a]f", "[aa]", "[ax]", "[af", "af]", "[]", "[af]:2"])
def test_brackets_that_hold_no_choice_are_refused(layout):
    with pytest.raises(ValueError, match="must be"):
        slots(layout)

"""From a checkpoint and a layout to a new model: what survives, with its moments, and what not."""

import dataclasses

import jax
import numpy as np
import pytest

from aejax import InputError
from aejax.config import check
from aejax.models.coders import Transformer
from aejax.optimizer import Adadelta
from aejax.runs import arrays, checkpoint, manifests
from aejax.training.setup import setup
from aejax.training.start import start
from aejax.training.state import TrainState
from tests.search import toys
from tests.training.runs import train

DEVICES = jax.devices()[:1]
STEPS = 12  # of the toys' run


def own_config():
    """Four slots in the encoder, two in the decoder."""
    return toys.config(toys.autoencoder("afwa", "if"))


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("parent"))
    train(own_config(), place, quiet=True, devices=DEVICES)
    return place


def begun(parent: str, layout: str, **changes) -> tuple[TrainState, str]:
    """The first state of a run with this encoder, and what was said."""
    config = dataclasses.replace(own_config(), init_from=parent, **changes)
    config.model.coder = dataclasses.replace(config.model.coder, encoder_layout=layout)
    lines: list[str] = []
    run_setup = setup(config, devices=DEVICES)
    return start(run_setup, "unused", None, None, lines.append).state, "\n".join(lines)


def stored(place: str, part: str) -> dict[str, np.ndarray]:
    shapes = manifests.shapes(place, STEPS, part)
    return {
        name: np.asarray(array)
        for name, array in checkpoint.load(place, STEPS, {part: shapes})[part].items()
    }


def test_slots_keep_their_block_with_its_moments_or_begin_anew(parent):
    # The parent is afwa: slot 0 becomes feed-forward, slot 2 sees all instead of a window, and
    # slot 3 is empty.
    state, said = begun(parent, "ffai", init_moments=True)
    fates = {line.split()[1]: line.split()[0] for line in said.splitlines()[1:-1]}
    old, rest = stored(parent, "params"), stored(parent, "rest")
    new = arrays.flatten(state.params)
    for name, fate in fates.items():
        slot = name.split("/")[3] if name.startswith("encoder/stack/slots") else ""
        # Of slot 0 the norm has the same name and shape, but belongs to another block.
        expected = {"0": {"fresh", "replaced", "dropped"}, "3": {"dropped"}}.get(slot, {"kept"})
        assert fate in expected, name
        if fate == "kept":
            assert np.asarray(new[name]).tobytes() == old[name].tobytes(), name
    assert fates["encoder/stack/slots/0/norm/scale"] == "replaced"
    assert fates["encoder/stack/slots/2/block/into"] == "kept"
    moments = arrays.flatten({"opt_state": state.opt_state})
    for name, array in moments.items():
        parameter = "/".join(name.split("/")[3:])
        if fates.get(parameter) == "kept" or name == "opt_state/0/count":
            assert np.asarray(array).tobytes() == rest[name].tobytes(), name
        else:
            assert not np.any(array), name
    # The schedule begins anew: this run is one of its own.
    assert int(moments["opt_state/0/count"]) == STEPS and int(moments["opt_state/1/count"]) == 0
    kept = sum(fate == "kept" for fate in fates.values())
    assert said.splitlines()[-1] == f"moments from there: {2 * kept + 1} arrays of {len(moments)}"


def test_without_asking_moments_begin_anew(parent):
    state, said = begun(parent, "afwa")
    assert "moments" not in said and "replaced" not in said and "fresh" not in said
    assert not any(np.any(array) for array in jax.tree.leaves(state.opt_state))


def test_with_all_of_it_the_next_update_is_the_parents_own(parent, tmp_path):
    """With a constant rate a grafted run's first step is the 13th of its parent."""
    longer = dataclasses.replace(own_config(), duration=f"{STEPS + 1} steps")
    train(longer, str(tmp_path / "longer"), quiet=True, devices=DEVICES)
    state, _ = begun(parent, "afwa", init_moments=True)
    run_setup = setup(longer, devices=DEVICES)
    state = dataclasses.replace(state, step=state.step + STEPS)
    feed = run_setup.open_feed()
    run, block = run_setup.compile(feed), feed.at(STEPS)
    at = (np.int32(block.first), np.int32(1), np.int32(1))
    state, _ = run(state, block.arrays, *(jax.device_put(n, run_setup.replicated) for n in at))
    own = manifests.shapes(str(tmp_path / "longer"), STEPS + 1, "params")
    read = checkpoint.load(str(tmp_path / "longer"), STEPS + 1, {"params": own})["params"]
    for name, array in arrays.flatten(state.params).items():
        assert np.asarray(array).tobytes() == np.asarray(read[name]).tobytes(), name


def test_moments_of_another_optimizer_and_of_no_run_are_refused(parent):
    with pytest.raises(
        InputError, match=r"init_moments=True: .* config.optimizer=adadelta could use"
    ):
        begun(parent, "afwa", init_moments=True, optimizer=Adadelta())
    with pytest.raises(InputError, match=r"config.init_moments=True: needs config.init_from"):
        check(dataclasses.replace(own_config(), init_moments=True))


def test_a_slot_survives_where_it_holds_the_same_kind_of_block():
    ours, theirs = Transformer(encoder_layout="afwi"), Transformer(encoder_layout="wiaaf")
    lives = [
        ours.is_transferable(f"encoder/stack/slots/{slot}/norm/scale", theirs) for slot in range(5)
    ]
    assert lives == [True, False, True, False, False]
    assert ours.is_transferable("encoder/positions", theirs)

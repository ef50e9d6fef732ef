"""Successive halving, with trainings whose losses are known."""

import math
from types import SimpleNamespace

from aejax.search import retraining
from aejax.search.space import Layout, Space, rearranged
from aejax.training.loop import NotFinite

SPACE = Space(("afi",) * 6, ("i",))
FOUND = Layout("aaffff", "i")


class Known:
    """A job whose runs' losses are `loss(layout, steps, seed)`.

    Attributes:
        ran: (layout, steps, seed) of each run, in order.
    """

    def __init__(self, loss, count):
        run = SimpleNamespace(seed=7, duration="100 steps", batch_size=4)
        self.settings = SimpleNamespace(trials=count, run=run, space=lambda: SPACE)
        self.learning, self.judging, self.loss, self.ran = range(40), object(), loss, []

    def say(self, line):
        del line

    def load_or_compute(self, name, make, shared):
        assert shared and name.startswith("trials-")
        return make()

    def shared_map(self, make, items, name, duration):
        del name, duration
        return [make(item) for item in items]

    def model(self, layout):
        return layout

    def config(self, model, duration, seed):
        return str(model), int(duration.split()[0]), seed

    def train(self, name, config, sources):
        layout, _, seed = config
        assert name == f"trials/{layout}-{seed}".replace("|", "-")
        assert sources == (self.learning, self.judging)
        self.ran.append(config)
        return SimpleNamespace(metrics={"nll": self.loss(*config)})


def test_rearranged_layouts_are_different_networks_of_the_same_blocks():
    found = rearranged(SPACE, FOUND, 20, seed=0)
    # Fifteen places for two of six, of which one is that of the layout itself.
    assert len({str(layout) for layout in found}) == 14 and FOUND not in found
    assert all(sorted(layout.encoder) == sorted(FOUND.encoder) for layout in found)
    assert rearranged(SPACE, FOUND, 5, seed=0) == found[:5]


def test_the_better_third_goes_on_and_three_seeds_decide():
    everything = [FOUND, *rearranged(SPACE, FOUND, 11, seed=7)]
    rank = {str(layout): number for number, layout in enumerate(everything)}

    # The first four are best after half of the steps, in reverse after all. Of the best two of
    # these the second is best with the seeds that come last.
    def loss(layout, steps, seed):
        if seed > 7:
            return {2: 0.0, 3: 5.0}[rank[layout]]
        return rank[layout] if steps == 50 else -rank[layout]

    job = Known(loss, 12)
    best = retraining.successive_halving(job, FOUND)  # pyright: ignore[reportArgumentType]
    first, second, third = best["rounds"]
    assert set(first) == set(rank) and {rank[layout] for layout in second} == {0, 1, 2, 3}
    assert {rank[layout]: loss for layout, loss in third.items()} == {2: -2 / 3, 3: 7 / 3}
    assert rank[best["layout"]] == 2
    assert [steps for _, steps, _ in job.ran] == [50] * 12 + [100] * 4 + [100] * 6
    assert [seed for *_, seed in job.ran[-6:]] == [7, 8, 9] * 2


def test_a_layout_that_diverges_is_the_worst_and_ends_nothing():
    def loss(layout, steps, seed):
        if layout == str(FOUND):
            raise NotFinite("the loss in steps 1 to 4: not finite")
        return 1.0

    best = retraining.successive_halving(Known(loss, 3), FOUND)  # pyright: ignore[reportArgumentType]
    assert best["rounds"][0][str(FOUND)] == math.inf and best["layout"] != str(FOUND)
    assert len(best["rounds"]) == 1

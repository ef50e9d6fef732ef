"""Search: how many of six slots need attention to copy, where it is known: one (a planted task).

    python -m launch.search --config=search_copy --config.run.seed=S

The supernet (seeds 30 to 39) and replacement (seeds 10 to 19) end with one block of attention, 10
times of 10 each; trained again from nothing, all layouts find every hidden symbol. Two minutes a
seed on one core.
"""

from aejax.search import Search
from configs import search_plant


def get_config() -> Search:
    """Any one slot will do; --config.run.data.source=planted:counting needs none at all."""
    config = search_plant.get_config()
    config.run.model.coder.encoder_layout = "aaaaaa"
    config.run.model.coder.positions = "learned"
    config.encoder_space, config.shuffle = ("afi",), False
    return config

"""Search: how many of six slots need attention in a window, where it is known: two (planted).

    python -m launch.search --config=search_hop2 --config.run.seed=S

The supernet ends with two blocks in nine of ten (seeds 30 to 39; with 38 it learns the task in its
last 200 steps only, and is called collapsed), replacement in nine of ten (seeds 10 to 19; once with
three), and all layouts, trained again from nothing, find the hidden symbols (at most 1 % wrong).
Three to six minutes a seed on one core.
"""

from aejax.search import Search
from configs import search_plant


def get_config() -> Search:
    """A token's copy is eight away and a window reaches five: two blocks, in any two slots."""
    config = search_plant.get_config()
    config.run.model.coder.encoder_layout = "wwwwww"
    config.run.model.coder.positions = "learned"
    config.encoder_space, config.shuffle = ("wfi",), False
    config.supernet.duration, config.run.duration = "3500 steps", "3000 steps"
    return config

"""Search: how many of six slots need attention to copy, where it is known: one (a planted task).

python -m launch.search --config=search_copy
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

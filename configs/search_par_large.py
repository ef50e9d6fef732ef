"""Search: the same as search_par for a GPU: 512 bytes, twelve layers of 512, in bfloat16.

    python -m launch.search --config=search_par_large --config.run.data.source=text:FILE?length=512

Margin and what counts as learned are those of search_par a byte. There are no figures yet: none was
measured without a GPU.
"""

from aejax.search import Search
from configs import search_par


def get_config() -> Search:
    """24 slots; the blocks of one update are computed again in the backward pass."""
    config = search_par.get_config()
    coder = config.run.model.coder
    coder.width, coder.heads, coder.feed_forward = 512, 8, 2048
    coder.encoder_layout, coder.remat = "interleaved:12", True
    config.run.compute, config.run.batch_size = "bfloat16", 64
    config.run.duration = "30000 steps"
    config.run.optimizer.learning_rate = 3e-4
    config.supernet.duration, config.supernet.anneal = "40000 steps", 15000
    config.replacement.imitation = config.replacement.tuning = "5000 steps"
    config.controls = ("par:4:12", "sandwich:6:12", "f" * 24)
    config.random = 20
    # A row has eight times as many bytes.
    config.learned, config.margin = 8 * config.learned, 8 * config.margin
    return config

"""Search: the same as search_par for a GPU: 512 bytes a row, layers of 256, in bfloat16.

    python -m launch.search --config=search_par_large --config.run.data.source=text:FILE?length=512

Margin and what counts as learned are those of search_par a byte. Deeper ones by
--config.run.model.coder.encoder_layout=interleaved:12 with, say, --config.controls=par:4:12.

The search itself, on an H200:

    python -m launch.search --config=search_par_large --config.random=1 \\
        --config.controls=par:4:4,ffffffff --config.run.data.source=text:FILE?length=512

Without attention 360 nats a row, the parent 109.3 +- 3.3. A supernet whose architecture learned in
three of ten steps, by all rows, kept two blocks of attention and three feed-forward ones, fifiiafa:
39 % less time in training, 130.5 +- 1.6 nats, worse than the parent (+21 +- 7, margin 2.16) and
than the same blocks in random slots (123.0 +- 1.4): it begins to search while its blocks still
learn fast. PAR's rule: 115.3 +- 6.7. What the supernet finds as it is now was not seen on a GPU.
All of it: docs/log/search.md.
"""

from aejax.config import Evaluation
from aejax.search import Search
from configs import search_par


def get_config() -> Search:
    """Four layers again, so that layouts compare; the supernet alone searches."""
    config = search_par.get_config()
    coder = config.run.model.coder
    coder.width, coder.heads, coder.feed_forward = 256, 4, 1024
    config.run.compute, config.run.batch_size = "bfloat16", 64
    config.run.duration = "1500 steps"
    config.run.optimizer.learning_rate = 1e-3
    config.run.evaluation = Evaluation(every="")  # a GPU takes more rows at a time
    config.method = "supernet"
    # A row has eight times as many bytes.
    config.learned, config.margin = 8 * config.learned, 8 * config.margin
    config.supernet.cost_weight *= 8
    config.supernet.duration = "2900 steps"  # it learns in 1100
    return config

"""Encoders and decoders, a pair to a file, each built from a small dataclass of settings."""

from aejax.models.coders.convolutional import Convolutional
from aejax.models.coders.convolutional_stage import ConvolutionalStage
from aejax.models.coders.dense import Dense
from aejax.models.coders.recurrent import Recurrent
from aejax.models.coders.transformer import Transformer
from aejax.models.interfaces import Coder
from aejax.registry import Kinds

KINDS = Kinds(
    "aejax.coders",
    Coder,
    {
        "dense": Dense,
        "convolutional": Convolutional,
        "convolutional_stage": ConvolutionalStage,
        "recurrent": Recurrent,
        "transformer": Transformer,
    },
)

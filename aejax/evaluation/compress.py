"""Task: codes as bytes, beside codecs: JPEG, WebP and AVIF for images, MP3 and FLAC for sound.

Codes are quantised, entropy-coded, and decoded again from the bytes. All bytes of a file count,
headers included.
"""

import jax
import numpy as np
from flax import nnx

from aejax.data.sources.base import Source, Spec
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import compress_images, compress_sound
from aejax.evaluation.container import MOST_BITS, CodeWriter, codes_digest
from aejax.evaluation.detector import digest
from aejax.evaluation.encoded import evenly
from aejax.evaluation.result import Number, Result, need_autoencoder, need_whole
from aejax.runs.folder import Run
from aejax.runs.loading import Model

ARRAYS = "compress.npz"
_MOST_CODES = 10_000


def check(run: Run, spec: Spec, bits: int | None = None) -> None:
    """Raises InputError if the task cannot be done, or for a wrong number of bits."""
    check_bits(bits)
    need_autoencoder(run, "--tasks=compress")
    need_whole(spec, "--tasks=compress")
    (compress_sound if spec.rate else compress_images).check(run, spec)


def task(model: Model, source: Source, learned: Source, bits: int | None = None) -> Result:
    """Compresses rows with several step sizes, and with codecs.

    Args:
        model: `rows.rescaled` to the source.
        source: images, or stretches of a waveform.
        learned: rows of the run's training split, to whose codes the entropy model is fitted.
        bits: quantise with a step of the range of training codes over 2^bits, 1 to 12; None for
            several steps.

    Raises:
        InputError: rows that are neither, or wrong `bits`.
    """
    check(model.run, source.spec, bits)
    codes = training_codes(model, learned)
    measure = compress_sound.measure if source.spec.rate else compress_images.measure
    result = measure(model, source, coder(model, codes), bits)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model.module))))
    result.numbers["model_bytes"] = Number(
        int(size), "bytes", "parameters of encoder and decoder; no file holds them"
    )
    result.numbers["table_bytes"] = Number(
        codes.nbytes, "bytes", "training codes of the entropy model; no file holds them"
    )
    result.notes.append("Every file was decoded again, to exactly the codes that went in.")
    result.files[ARRAYS] = {"codes": codes}
    return result


def check_bits(bits: int | None) -> None:
    """Raises InputError for a wrong number of bits."""
    if bits is not None and not 1 <= bits <= MOST_BITS:
        raise InputError(f"--bits={bits}: must be from 1 to {MOST_BITS}")


def training_codes(model: Model, train: Source) -> np.ndarray:
    """Codes of training rows, evenly taken, float32 [rows, numbers]."""
    rows = take(train, evenly(len(train), _MOST_CODES))
    count = len(rows)
    pieces = [model.encode(rows[slice(i, i + 1000)].x) for i in range(0, count, 1000)]
    return np.concatenate(pieces).reshape(count, -1)


def coder(model: Model, codes: np.ndarray) -> CodeWriter:
    """The writer and reader of files of a model's codes.

    Args:
        model: any checkpoint.
        codes: its `training_codes`.
    """
    return CodeWriter(codes, (digest(model), codes_digest(codes)))


def decoded(model: Model, codes: np.ndarray) -> np.ndarray:
    """Codes [rows, numbers] -> rows: uint8 of images, float32 in -1 to 1 of sound."""
    kind = compress_sound if model.run.spec.rate else compress_images
    return kind.decoded(model, codes)

"""Sound as codes beside MP3 and FLAC: kbit/s against signal-to-noise ratio and spectral distance.

All rows are concatenated to one waveform and one file of each codec, so that headers count once.
Each bit rate of MP3 is compared with codes whose step is chosen to need as many bytes; if no step
needs so many, with the finest.
"""

import math
from typing import NamedTuple

import numpy as np

from aejax.data.sources.base import Source, Spec, names
from aejax.errors import InputError
from aejax.evaluation import plots, sound_codecs
from aejax.evaluation.container import CodeWriter
from aejax.evaluation.result import Figure, Number, Result, Sound, Table
from aejax.evaluation.sound_codecs import log_spectral_distance, mp3_rates, snr
from aejax.runs.folder import Run
from aejax.runs.loading import Model

BITS = (4, 5, 6, 7, 8, 9, 10)
_MOST_SAMPLES = 2**22
_MOST_SECONDS = 4
# Index of the bit rate of the MP3 recording in the report: not the worst, but audibly compressed.
_HEARD = 1


class Point(NamedTuple):
    """A codec at one setting: kbit/s, signal-to-noise ratio in dB, log-spectral distance in dB."""

    kbps: float
    snr: float
    lsd: float


def check(run: Run, spec: Spec) -> None:
    """Raises InputError unless rows are unscaled waveforms with a sampling rate of MP3."""
    prepare = run.config.data.prepare
    if len(spec.shape) != 1 or prepare.scale or prepare.binarise != "none":
        raise InputError(
            f"--tasks=compress: config.data.prepare.scale={prepare.scale},"
            f" binarise={prepare.binarise}: of sound must be scale=False and binarise=none"
        )
    sound_codecs.check_rate(spec.rate, "--tasks=compress")


def measure(model: Model, source: Source, coder: CodeWriter, bits: int | None) -> Result:
    """Compresses a waveform with several step sizes, and with MP3 and FLAC.

    Args:
        model: of such rows.
        source: stretches of recordings, one after the other; the first 2^22 samples.
        coder: of the model's codes.
        bits: a step of its own, or None.
    """
    rate, length = source.spec.rate, source.spec.shape[0]
    count = max(1, min(len(source), _MOST_SAMPLES // length))
    rows = source[slice(0, count)].x
    signal, z = rows.reshape(-1), model.encode(rows).reshape(count, -1)
    numbers: dict[str, Number] = {}
    curves: dict[str, list[Point]] = {"autoencoder": [], "MP3": []}

    def point(size: int, waveform: np.ndarray) -> Point:
        distance = log_spectral_distance(signal, waveform, rate)
        return Point(8 * size * rate / len(signal) / 1000, snr(signal, waveform), distance)

    def coded(step: float) -> tuple[Point, np.ndarray]:
        done = coder.code(z, step)
        waveform = decoded(model, done.back).reshape(-1)
        return point(done.size, waveform), waveform

    steps = (*BITS, bits) if bits and bits not in BITS else BITS
    for each in sorted(steps):
        found = coded(coder.step(each))[0]
        curves["autoencoder"].append(found)
        numbers |= _numbers(f"bits{each}", found, f"codes in steps of range / 2^{each}", rate)
    matched, heard = [], []
    for place, kbps in enumerate(mp3_rates(rate)):
        size, waveform = sound_codecs.mp3(signal, rate, kbps)
        found, (own, made) = point(size, waveform), coded(coder.step_for(z, size))
        curves["MP3"].append(found)
        matched.append(own)
        numbers |= _numbers(f"mp3_{kbps}", found, f"MP3 of {kbps} kbit/s", rate)
        numbers |= _numbers(
            f"at_mp3_{kbps}", own, f"codes of at most the bytes of mp3_{kbps}", rate
        )
        if place == _HEARD:
            heard = [(found, waveform), (own, made)]
    lossless = point(sound_codecs.flac_bytes(signal, rate), signal)
    numbers["flac_kbps"] = Number(lossless.kbps, "kbit/s", "FLAC of 16 bits, which loses nothing")
    numbers |= _verdict(curves["MP3"], matched)
    curves["autoencoder"] = sorted(curves["autoencoder"] + matched)
    notes = [
        f"{count} rows of {length} samples, {rate} a second, in one file of each codec, headers"
        " included; the model and its table are not counted. MP3's delay and gain are taken off."
    ]
    return Result(
        numbers,
        _figures(curves, lossless.kbps),
        notes=notes,
        tables=[_table(curves["MP3"], matched)],
        sounds=_sounds(signal, heard, _word(source, count), rate),
    )


def decoded(model: Model, codes: np.ndarray) -> np.ndarray:
    """Codes [rows, numbers] -> stretches of waveform of 16 bits, float32 [rows, samples]."""
    waveform = model.decode(codes.reshape(-1, *model.code_shape))
    return sound_codecs.to_pcm(waveform).astype(np.float32) / 32768


def _numbers(name: str, point: Point, meaning: str, rate: int) -> dict[str, Number]:
    """The numbers of a codec at one setting."""
    a_sample = point.kbps * 1000 / rate
    return {
        f"{name}_kbps": Number(point.kbps, "kbit/s", meaning),
        f"{name}_bits_per_sample": Number(a_sample, "bits per sample", f"of {name}"),
        f"{name}_snr": Number(point.snr, "dB", f"signal-to-noise ratio of {name}"),
        f"{name}_lsd": Number(point.lsd, "dB", f"log-spectral distance of {name}; 0 is best"),
    }


def _verdict(mp3: list[Point], matched: list[Point]) -> dict[str, Number]:
    """Mean differences to MP3 at its bit rates."""
    pairs = list(zip(mp3, matched, strict=True))
    gain = np.mean([own.snr - other.snr for other, own in pairs])
    further = np.mean([own.lsd - other.lsd for other, own in pairs])
    return {
        "snr_over_mp3": Number(
            float(gain), "dB", "mean signal-to-noise ratio above MP3's, at most its bytes", True
        ),
        "lsd_over_mp3": Number(
            float(further),
            "dB",
            "mean log-spectral distance above MP3's, at most its bytes; below 0 is better",
            True,
        ),
    }


def _table(mp3: list[Point], matched: list[Point]) -> Table:
    """MP3 beside codes of at most as many bytes."""
    head = ["MP3, kbit/s", "codes, kbit/s"]
    head += ["MP3, SNR dB", "codes, SNR dB", "MP3, distance dB", "codes, distance dB"]
    rows = [
        [f"{value:.2f}" for pair in zip(other, own, strict=True) for value in pair]
        for other, own in zip(mp3, matched, strict=True)
    ]
    return Table("MP3 beside codes of at most as many bytes.", head, rows)


def _figures(curves: dict[str, list[Point]], lossless: float) -> list[Figure]:
    out = []
    for place, name, axis, better in (
        (1, "snr", "signal-to-noise ratio, dB", "up and left is better"),
        (2, "lsd", "log-spectral distance, dB", "down and left is better"),
    ):
        series = {
            key: (np.array([p.kbps for p in points]), np.array([p[place] for p in points]))
            for key, points in curves.items()
        }
        if all(np.isfinite(y).all() for _, y in series.values()):
            png = plots.lines_png(series, ("kbit/s", axis))
            first = axis.partition(",")[0].capitalize()
            caption = f"{first} against kbit/s; {better}. FLAC needs {lossless:.4g} kbit/s."
            out.append(Figure(f"compress_{name}", png, caption))
    return out


def _word(source: Source, count: int) -> slice:
    """The samples of the first recording."""
    length, rate = source.spec.shape[0], source.spec.rate
    most = min(count, max(1, math.ceil(_MOST_SECONDS * rate / length)))
    found = names(source, np.arange(most))
    if found is not None:
        most = next((row for row, name in enumerate(found) if name != found[0]), most)
    return slice(0, most * length)


def _sounds(
    signal: np.ndarray, heard: list[tuple[Point, np.ndarray]], word: slice, rate: int
) -> list[Sound]:
    """A recording before and after, to listen to."""
    (mp3, by_mp3), (own, by_codes) = heard
    captions = {
        "original": (signal, "The first recording."),
        "codes": (by_codes, f"From codes of {own.kbps:.1f} kbit/s."),
        "mp3": (by_mp3, f"From MP3 of {mp3.kbps:.1f} kbit/s."),
    }
    return [
        Sound(f"compress_{name}", sound_codecs.wav(waveform[word], rate), caption)
        for name, (waveform, caption) in captions.items()
    ]

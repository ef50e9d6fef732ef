"""A folder of recordings: as log energies in bands of the mel scale, or as their waveform."""

import dataclasses
import functools

import numpy as np

from aejax.data.sources import checks, folders
from aejax.data.sources.base import Rows, Source, Spec
from aejax.data.sources.folders import Files
from aejax.data.sources.splits import Splits
from aejax.errors import InputError

FORM = "sound:FOLDER, sound:FOLDER?seconds=1&bands=40 or sound:FOLDER?samples=256"
SUFFIXES = (".wav",)
WINDOW, HOP = 0.025, 0.010  # seconds
# Energies are clipped here, 80 dB below a sine of full scale.
_LEAST = 1e-8


@dataclasses.dataclass(frozen=True)
class Frames(folders.OfFiles):
    """Recordings of one rate, read when they are indexed: float32 [frames, bands] in dB.

    A frame is a window of 25 ms, every 10 ms. Longer recordings are cut, shorter ones padded.

    Attributes:
        files: one a row.
        rate: samples a second.
        frames: of a row.
        bands: of a frame.
        given: the source as it was given, for messages.
    """

    files: Files
    rate: int
    frames: int
    bands: int
    given: str

    @property
    def spec(self) -> Spec:
        shape = (self.frames, self.bands)
        labelled, classes = self.files.label is not None, self.files.classes
        return Spec(shape, "float32", None, labelled, padded=True, classes=classes)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads the recordings at `index`.

        Raises:
            InputError: one that cannot be read, or has another rate.
        """
        index = checks.positions(index, len(self))
        x = np.zeros((len(index), self.frames, self.bands), np.float32)
        length = np.empty(len(index), np.int32)
        for row, number in enumerate(index):
            samples = _samples(self.files, number, self.rate, self.given)
            made = energies(samples, self.rate, self.frames, self.bands)
            x[row, : len(made)], length[row] = made, len(made)
        label = self.files.label
        return Rows(x, None if label is None else label[index], length)


@dataclasses.dataclass(frozen=True)
class Waveforms:
    """Recordings of one rate as their samples, read when they are indexed: float32 [samples].

    Each recording is cut into consecutive rows that do not overlap; its last one ends in silence.

    Attributes:
        files: the recordings.
        rate: samples a second.
        samples: of a row.
        first: the index of each recording's first row, and the number of rows [recordings + 1].
        given: the source as it was given, for messages.
    """

    files: Files
    rate: int
    samples: int
    first: np.ndarray
    given: str

    @property
    def spec(self) -> Spec:
        labelled, classes = self.files.label is not None, self.files.classes
        return Spec((self.samples,), "float32", None, labelled, classes=classes, rate=self.rate)

    def __len__(self) -> int:
        return int(self.first[-1])

    def names(self, index: np.ndarray) -> list[str]:
        """Paths of these rows' recordings below the folder, with forward slashes."""
        return [self.files.names[number] for number in self._recordings(index)]

    def labels(self) -> np.ndarray | None:
        """All labels, without reading the files."""
        label = self.files.label
        return None if label is None else np.repeat(label, np.diff(self.first))

    def paths(self) -> list[str]:
        """The path of each row's recording."""
        paths = self.files.paths()
        return [paths[number] for number in self._recordings(np.arange(len(self)))]

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads the rows at `index`, each recording once.

        Raises:
            InputError: a recording that cannot be read, or has another rate.
        """
        index = checks.positions(index, len(self))
        numbers = self._recordings(index)
        x = np.empty((len(index), self.samples), np.float32)
        for number in np.unique(numbers):
            here = numbers == number
            samples = _samples(self.files, number, self.rate, self.given)
            frames = np.zeros((self.first[number + 1] - self.first[number], self.samples))
            frames.reshape(-1)[: len(samples)] = samples
            x[here] = frames[index[here] - self.first[number]]
        label = self.files.label
        return Rows(x, None if label is None else label[numbers])

    def _recordings(self, index: np.ndarray) -> np.ndarray:
        """The number of each row's recording."""
        return np.searchsorted(self.first, index, side="right") - 1


def splits(argument: str) -> Splits:
    """The splits of a folder of recordings (.wav), as `folders` finds them.

    With `samples` a row is so many samples of a waveform, and no recording is in two splits.

    Raises:
        InputError: no such folder, a wrong option, no recordings in it, or some outside its train
            and test.
    """
    defaults = {"seconds": 1.0, "bands": 40, "samples": 0}
    folder, options = checks.options(argument, FORM, defaults)
    files = folders.find(folder, FORM, SUFFIXES, "recordings")
    if not options["samples"]:
        return folders.splits(files, functools.partial(_frames, argument, options))
    for word in checks.split_options(argument)[1]:
        if not word.startswith("samples="):
            raise InputError(f"{word}: is for frames of energies; must not be with samples")
    make = functools.partial(_waveforms, argument, options["samples"])
    return folders.splits_by_file(files, make)


def _waveforms(given: str, samples: int, files: Files) -> Source:
    rate, _ = _read(files.path(0))
    lengths = [len(_samples(files, number, rate, given)) for number in range(len(files))]
    rows = -(-np.array(lengths) // samples)
    return Waveforms(files, rate, samples, np.concatenate([[0], np.cumsum(rows)]), given)


def _frames(given: str, options: dict[str, float], files: Files) -> Source:
    folders.sizes(files)  # refuses a link that leads nowhere
    rate, _ = _read(files.path(0))
    frames = 1 + int(max(options["seconds"] - WINDOW, 0) / HOP + 1e-6)
    bands, most = int(options["bands"]), round(WINDOW * rate) // 2
    if bands > most:
        raise InputError(f"bands={bands}: must be at most {most} at {rate} samples a second")
    return Frames(files, rate, frames, bands, given)


def energies(samples: np.ndarray, rate: int, most: int, bands: int) -> np.ndarray:
    """10 log10 of the energy in each band of each window, float32 [frames, bands].

    Args:
        samples: in -1 to 1 [n]; fewer than a window are followed by silence.
        rate: samples a second.
        most: frames at most.
        bands: of the mel scale, from 0 to half the rate.
    """
    size, hop = round(WINDOW * rate), round(HOP * rate)
    samples = np.pad(samples, (0, max(size - len(samples), 0)))[: size + (most - 1) * hop]
    windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)
    # Normalised so that a sine of full scale has energy 1.
    power = np.square(np.abs(np.fft.rfft(windows)) / (np.hanning(size).sum() / 2))
    return (10 * np.log10(np.maximum(power @ mel(bands, size, rate), _LEAST))).astype(np.float32)


@functools.lru_cache
def mel(bands: int, size: int, rate: int) -> np.ndarray:
    """Triangular filters, evenly spaced on the mel scale: [size // 2 + 1, bands].

    mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987). Each filter rises from the peak of the
    previous one and falls to the peak of the next, so that their sum is 1 between the outer peaks.
    """
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, size // 2 + 1)[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    return np.maximum(np.minimum(rising, falling), 0)


def _samples(files: Files, number: int, rate: int, given: str) -> np.ndarray:
    """The samples of one recording, in -1 to 1 [n].

    Args:
        files: the recordings.
        number: index of the one to read.
        rate: samples a second that it must have.
        given: the source, for messages.

    Raises:
        InputError: it cannot be read, or has another rate.
    """
    path = files.path(number)
    try:
        found, samples = _read(path)
        if found != rate:
            raise InputError(
                f"{path} has {found} samples a second, {files.path(0)} {rate};"
                " accepted: recordings of one rate"
            )
    except InputError as error:
        raise InputError(f"data.source=sound:{given}: {error}") from None
    return samples


def _read(path: str) -> tuple[int, np.ndarray]:
    """Samples a second, and samples in -1 to 1 [n], channels averaged.

    Raises:
        InputError: no recording.
    """
    from scipy.io import wavfile

    try:
        rate, samples = wavfile.read(path)
    except Exception as error:  # SciPy raises errors of many kinds on damaged files
        raise InputError(f"recording {path} cannot be read: {error}") from None
    if not samples.size:
        raise InputError(f"recording {path} has no samples")
    if samples.dtype == np.uint8:  # silence is 128
        samples = (samples.astype(np.float64) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return rate, samples.reshape(len(samples), -1).mean(axis=1)

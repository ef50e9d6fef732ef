"""Recordings as frames: their energies, lengths, and what is said of files that do not fit."""

import numpy as np
import pytest
from scipy.io import wavfile

from aejax.data.sources import open_source, sound
from aejax.data.sources.base import names
from aejax.errors import InputError

RATE = 8000


def sine(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path, samples: np.ndarray, rate: int = RATE, dtype: type = np.int16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if dtype == np.uint8:
        samples = 128 + 127 * samples
    elif np.issubdtype(dtype, np.integer):
        samples = samples * np.iinfo(dtype).max
    wavfile.write(path, rate, samples.astype(dtype))


def refused(folder, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(f"sound:{folder}", "all")[:]
    message = str(caught.value)
    assert "\n" not in message and message.startswith("data.source=sound:")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3000.0])
def test_a_sine_is_loud_in_its_own_band_and_nowhere_else(frequency):
    made = sound.energies(sine(frequency, 0.5), RATE, 100, 40)
    edges = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42)
    own = np.argmin(np.abs(edges[1:-1] - 2595 * np.log10(1 + frequency / 700)))
    assert made.shape == (1 + (4000 - 200) // 80, 40)
    assert (made.argmax(axis=1) == own).all()
    # Bands sum to the sine's energy spread over the window's main lobe: a little above 0 dB.
    total = 10 * np.log10((10 ** (made.astype(float) / 10)).sum(axis=1))
    np.testing.assert_allclose(total, 10 * np.log10(1.5), atol=0.2)
    far = np.abs(np.arange(40) - own) > 8
    assert made[:, far].max() < -40


def test_energy_is_that_of_the_windows_fourier_transform():
    noise = np.random.RandomState(0).standard_normal(1000) / 10
    made = sound.energies(noise, RATE, 100, 20)
    frame = noise[3 * 80 : 3 * 80 + 200] * np.hanning(200)
    angles = np.outer(np.arange(101), np.arange(200)) * 2 * np.pi / 200
    power = (np.cos(angles) @ frame) ** 2 + (np.sin(angles) @ frame) ** 2
    energy = (power / (np.hanning(200).sum() / 2) ** 2) @ sound.mel(20, 200, RATE)
    np.testing.assert_allclose(made[3], 10 * np.log10(energy), atol=1e-4)


def test_bands_share_each_frequency_between_them():
    weights = sound.mel(20, 400, 16000)
    peaks = 700 * (10 ** (np.linspace(0, np.log10(1 + 8000 / 700), 22)[[1, -2]]) - 1)
    frequencies = np.arange(201) * 40.0
    inside = (peaks[0] < frequencies) & (frequencies < peaks[1])
    np.testing.assert_allclose(weights[inside].sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_recordings_are_the_same_in_any_type(tmp_path, dtype):
    write(tmp_path / "one.wav", 0.5 * sine(500, 0.3), dtype=dtype)
    rows = open_source(f"sound:{tmp_path}?seconds=0.5", "all")[:]
    wanted = sound.energies(0.5 * sine(500, 0.3), RATE, 48, 40)
    assert (rows.x.shape, rows.x.dtype, list(rows.length)) == ((1, 48, 40), "float32", [28])
    loud = wanted > -30
    np.testing.assert_allclose(rows.x[0, :28][loud], wanted[loud], atol=0.3)
    assert (rows.x[0, 28:] == 0).all()


def test_long_ones_are_cut_and_short_ones_end_in_padding(tmp_path):
    for number, seconds in enumerate((2.0, 0.5, 0.01)):
        write(tmp_path / f"{number}.wav", sine(500, seconds))
    stereo = np.stack([sine(500, 0.5), np.zeros(4000)], axis=1)
    write(tmp_path / "3.wav", stereo)
    source = open_source(f"sound:{tmp_path}?seconds=1&bands=10", "all")
    assert source.spec.padded and source.spec.shape == (98, 10)
    rows = source[:]
    assert rows.length is not None and list(rows.length) == [98, 48, 1, 48]
    assert list(rows.real.sum(axis=(1, 2))) == [980, 480, 10, 480]
    loudest = rows.x.max(axis=2)
    assert loudest[3, 5] == pytest.approx(loudest[1, 5] - 20 * np.log10(2), abs=0.01)


def test_sub_folders_are_classes_and_splits(tmp_path):
    for split in ("train", "test"):
        for name in ("no", "yes"):
            write(tmp_path / split / name / "a.wav", sine(500, 0.1))
    train = open_source(f"sound:{tmp_path}", "train")
    assert len(train) == 2 and list(train[:].label) == [0, 1]
    assert train.spec.classes == ("no", "yes")
    both = open_source(f"sound:{tmp_path}", "train+test")
    assert list(both[:].length) == [8, 8, 8, 8]
    assert names(both, np.array([0, 3])) == ["train/no/a.wav", "test/yes/a.wav"]


def test_what_does_not_fit_is_named(tmp_path):
    write(tmp_path / "a" / "one.wav", sine(500, 0.1))
    write(tmp_path / "a" / "two.wav", sine(500, 0.1), rate=16000)
    refused(tmp_path / "a", "two.wav", "16000", "8000")
    (tmp_path / "b").mkdir()
    refused(tmp_path / "b", "holds no recordings", ".wav")
    (tmp_path / "b" / "one.wav").write_bytes(b"RIFF and no more")
    refused(tmp_path / "b", "one.wav", "cannot be read")
    write(tmp_path / "d" / "a.wav", sine(500, 0.1))
    (tmp_path / "d" / "b.wav").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="d/b.wav cannot be read: No such file"):
        open_source(f"sound:{tmp_path}/d", "train")  # before a row is read
    write(tmp_path / "c" / "one.wav", np.zeros(0))
    refused(tmp_path / "c", "one.wav", "no samples")
    refused(f"{tmp_path}/a?bands=101", "bands=101", "at most 100")
    refused(f"{tmp_path}/a?bands=2.5", "bands=2.5", "whole number")
    refused(f"{tmp_path}/a?seconds=0", "seconds=0", "above 0")
    refused(f"{tmp_path}/a?length=3", "'length'", "seconds=1&bands=40")


def test_waveforms_are_cut_into_rows_that_follow_one_another(tmp_path):
    random = np.random.RandomState(0)
    stored = {}
    for number, count in enumerate((500, 64, 130, 7, 200, 64, 65, 63, 300, 128)):
        stored[f"{number}.wav"] = random.randint(-(2**15), 2**15, count).astype(np.int16)
        wavfile.write(tmp_path / f"{number}.wav", RATE, stored[f"{number}.wav"])
    parts = {name: open_source(f"sound:{tmp_path}?samples=64", name) for name in ("train", "test")}
    seen = []
    for source in parts.values():
        assert source.spec.shape == (64,) and source.spec.rate == RATE and not source.spec.padded
        rows, files = source[:].x, np.array(names(source, np.arange(len(source))))
        assert rows.dtype == np.float32
        for file in dict.fromkeys(files):
            here = np.flatnonzero(files == file)
            assert list(here) == list(range(here[0], here[0] + len(here)))  # one after the other
            samples = rows[here].reshape(-1)
            count = len(stored[file])
            assert len(samples) == 64 * -(-count // 64) and not samples[count:].any()
            assert np.array_equal(samples[:count] * 32768, stored[file])
            seen.append(file)
        some = np.array([len(source) - 1, 0, len(source) // 2])
        assert np.array_equal(source[some].x, rows[some])
        assert len(source.paths()) == len(source)
    assert sorted(seen) == sorted(stored) and len(parts["test"]) > 0  # each in one split
    assert len(open_source(f"sound:{tmp_path}?samples=64", "all")) == sum(map(len, parts.values()))


def test_waveforms_have_the_labels_and_splits_of_their_folders(tmp_path):
    for split in ("train", "test"):
        for name in ("no", "yes"):
            write(tmp_path / split / name / "a.wav", sine(500, 0.1))
    train = open_source(f"sound:{tmp_path}?samples=500", "train")
    assert list(train[:].label) == [0, 0, 1, 1] and list(train.labels()) == [0, 0, 1, 1]
    assert names(train, np.array([2])) == ["train/yes/a.wav"]
    refused(f"{tmp_path}?samples=64&bands=3", "bands=3", "must not be with samples")
    refused(f"{tmp_path}?samples=0", "samples=0", "at least 1")
    write(tmp_path / "train/no/b.wav", sine(500, 0.1), rate=16000)
    refused(f"{tmp_path}?samples=64", "b.wav", "16000", "8000")
    (tmp_path / "few").mkdir()
    write(tmp_path / "few/a.wav", sine(500, 0.1))
    with pytest.raises(InputError, match="it has 1 file, too few to be cut into train"):
        open_source(f"sound:{tmp_path / 'few'}?samples=64", "test")

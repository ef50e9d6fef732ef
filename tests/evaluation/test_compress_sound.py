"""Sound as bytes: the codecs beside it, distances, and a run's file in another process."""

import dataclasses
import io
import pathlib

import numpy as np
import pytest
from scipy.io import wavfile

from aejax.config import Data, Prepare
from aejax.errors import InputError
from aejax.evaluation import checkpoints, compress, compress_sound, sound_codecs
from aejax.evaluation.sound_codecs import log_spectral_distance, snr
from aejax.runs import folder
from configs.transform import get_config
from tests.evaluation.test_compress import run
from tests.training.runs import train

RATE = 8000
TIME = np.arange(2 * RATE) / RATE
RANDOM = np.random.RandomState(0)


@pytest.mark.parametrize("kbps", [8, 16, 64])
def test_mp3_of_a_sine_is_that_sine_where_it_was(kbps):
    sine = (0.4 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)
    sine[: RATE // 2] = 0
    size, decoded = sound_codecs.mp3(sine, RATE, kbps)
    assert 8 * size / 2 / 1000 == pytest.approx(kbps, rel=0.15)
    assert decoded.shape == sine.shape and decoded.dtype == np.float32
    inside = slice(RATE // 2 + 1000, None)
    assert snr(sine[inside], decoded[inside]) > (40 if kbps == 64 else 20)


@pytest.mark.parametrize("delay", [0, 1, 1105, 4000])
def test_delay_gain_and_length_are_taken_off(delay):
    x = RANDOM.randn(5000).astype(np.float32)
    for after in (0, 777):
        decoded = np.concatenate([np.zeros(delay), 0.95 * x, np.zeros(after)]).astype(np.float32)
        np.testing.assert_allclose(sound_codecs.aligned(decoded, x), x, atol=1e-6)
    short = sound_codecs.aligned(x[:-10], x)
    assert snr(x, short) > 20 and not short[-10:].any()
    assert not sound_codecs.aligned(np.zeros(9, np.float32), np.zeros(9, np.float32)).any()


def test_flac_and_wav_keep_16_bits():
    import soundfile

    x = (RANDOM.randint(-32768, 32768, 4000) / 32768).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, sound_codecs.to_pcm(x), RATE, format="FLAC", subtype="PCM_16")
    assert sound_codecs.flac_bytes(x, RATE) == pytest.approx(len(file.getvalue()), rel=0.02)
    rate, samples = wavfile.read(io.BytesIO(sound_codecs.wav(x, RATE)))
    assert rate == RATE and np.array_equal(samples / np.float32(32768), x)


def test_distances_of_signals_whose_difference_is_known():
    x = RANDOM.randn(RATE) / 10
    assert snr(x, x) == np.inf and log_spectral_distance(x, x, RATE) == 0
    assert snr(x, 0.9 * x) == pytest.approx(20)
    assert log_spectral_distance(x, x / 10, RATE) == pytest.approx(20, abs=0.05)
    window = np.hanning(257)[:-1]  # periodic
    frames = np.lib.stride_tricks.sliding_window_view(x, 256)[::128]
    y = x + RANDOM.randn(RATE) / 30
    others = np.lib.stride_tricks.sliding_window_view(y, 256)[::128]
    logs = [20 * np.log10(np.abs(np.fft.rfft(each * window))) for each in (frames, others)]
    own = np.sqrt(np.square(logs[0] - logs[1]).mean(axis=1)).mean()
    assert log_spectral_distance(x, y, RATE) == pytest.approx(own, abs=0.02)
    silence = np.zeros(RATE)
    assert log_spectral_distance(silence, silence, RATE) == 0


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    """A run on ten recordings of a falling tone, of half a second each."""
    place = tmp_path_factory.mktemp("sound")
    (place / "recordings").mkdir()
    for number in range(10):
        time = np.arange(RATE // 2 - 10) / RATE
        tone = np.sin(2 * np.pi * (300 + 40 * number) * time) * np.exp(-4 * time)
        samples = 8000 * tone + RANDOM.randn(len(time)) * 50
        wavfile.write(place / f"recordings/{number}.wav", RATE, samples.astype(np.int16))
    config = get_config()
    config.data = Data(source=f"sound:{place}/recordings?samples=64", prepare=Prepare(scale=False))
    config.batch_size, config.duration, config.trackers = 128, "150 steps", ()
    train(config, str(place / "run"), quiet=True)
    return place / "run"


def test_a_waveform_is_compressed_beside_mp3_and_heard(workdir):
    request = checkpoints.check_request(str(workdir), ("compress",), bits=3)
    found = checkpoints.evaluate_request(request, say=lambda line: None)["tasks"]["compress"]
    x = request.rows.source[:].x
    ratios = [found[f"bits{bits}_snr"] for bits in compress_sound.BITS]
    rates = [found[f"bits{bits}_kbps"] for bits in (3, *compress_sound.BITS)]
    assert ratios == sorted(ratios) and rates == sorted(rates)
    assert found["bits5_bits_per_sample"] == pytest.approx(found["bits5_kbps"] / 8)
    size, decoded = sound_codecs.mp3(x.reshape(-1), RATE, 16)
    assert found["mp3_16_kbps"] == pytest.approx(8 * size * RATE / x.size / 1000)
    assert found["mp3_16_snr"] == pytest.approx(snr(x.reshape(-1), decoded))
    assert found["at_mp3_16_kbps"] == pytest.approx(found["mp3_16_kbps"], rel=0.05)
    pairs = [found[f"at_mp3_{k}_snr"] - found[f"mp3_{k}_snr"] for k in (8, 16, 24, 32, 48, 64)]
    assert found["snr_over_mp3"] == pytest.approx(np.mean(pairs))
    page = (workdir / "report.html").read_text()
    assert page.count('<audio controls src="data:audio/wav;base64,') == 3
    assert 'data-label="codes, kbit/s"' in page and "http" not in page and len(page) < 5e6
    rate, samples = wavfile.read(workdir / "figures/compress_original.wav")
    first = request.rows.source.names(np.arange(len(x)))
    assert rate == RATE and len(samples) == 64 * first.count(first[0])
    assert np.array_equal(samples / np.float32(32768), x.reshape(-1)[: len(samples)])


@pytest.mark.slow
def test_the_same_samples_come_back_in_another_process(workdir, monkeypatch, tmp_path):
    measured, decoded = [], compress_sound.decoded
    monkeypatch.setattr(
        compress_sound, "decoded", lambda *given: measured.append(decoded(*given)) or measured[-1]
    )
    checkpoints.evaluate(str(workdir), ("compress",), say=lambda line: None)
    place, file, out = f"--workdir={workdir}", tmp_path / "rows.aejax", tmp_path / "rows.npz"
    done = run(place, f"--out={file}", "--bits=7")
    assert done.returncode == 0 and "bits a sample" in done.stdout, done.stderr
    done = run(place, f"--decompress={file}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        assert np.array_equal(arrays["x"], measured[compress_sound.BITS.index(7)])


def test_what_cannot_be_is_refused(workdir):
    found = folder.read(str(workdir))
    spec = found.spec
    with pytest.raises(InputError, match="MP3 has no 9000 samples a second; accepted: 8000"):
        compress.check(found, dataclasses.replace(spec, rate=9000))
    found.config.data.prepare.scale = True
    with pytest.raises(InputError, match="config.data.prepare.scale=True"):
        compress.check(found, spec)

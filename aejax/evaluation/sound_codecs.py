"""Sound by MP3 and FLAC (libsndfile), and the quality of a decoded waveform."""

import io
import math

import numpy as np

from aejax.errors import InputError

# {samples a second: least and largest kbit/s of MP3, and those that are measured}; MPEG-1 layer
# III (ISO 11172-3), its extension to half the rates (ISO 13818-3), and MPEG 2.5 below.
_LOW = (8, 64, (8, 16, 24, 32, 48, 64))
_HALF = (8, 160, (8, 16, 32, 48, 64, 96))
_FULL = (32, 320, (32, 48, 64, 96, 128, 192))
_MP3 = {
    **dict.fromkeys((8000, 11025, 12000), _LOW),
    **dict.fromkeys((16000, 22050, 24000), _HALF),
    **dict.fromkeys((32000, 44100, 48000), _FULL),
}
# libsndfile's scale of compression ends below 1.
_MOST_COMPRESSION = 0.999
# The largest delay of encoder and decoder, in samples: more than two frames of MP3.
_MOST_DELAY = 4096
_SECONDS = 0.032
# 80 dB below a sine of full scale.
_LEAST_POWER = 1e-8


def check_rate(rate: int, asker: str) -> None:
    """Raises InputError for a sampling rate that MP3 does not have."""
    if rate not in _MP3:
        raise InputError(
            f"{asker}: MP3 has no {rate} samples a second; accepted: {', '.join(map(str, _MP3))}"
        )


def mp3_rates(rate: int) -> tuple[int, ...]:
    """The measured bit rates of MP3, in kbit/s, for a sampling rate."""
    return _MP3[rate][2]


def mp3(x: np.ndarray, rate: int, kbps: int) -> tuple[int, np.ndarray]:
    """The size in bytes of an MP3 file of constant bit rate, and the decoded waveform.

    Args:
        x: samples in -1 to 1 [n].
        rate: samples a second, one of MP3's.
        kbps: kbit/s, one of `mp3_rates`.

    Returns:
        Bytes, headers included, and samples [n], corrected for the delay and gain of encoder and
        decoder (LAME lowers the volume a little).
    """
    import soundfile

    low, high, _ = _MP3[rate]
    file = io.BytesIO()
    soundfile.write(
        file,
        x,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=min((high - kbps) / (high - low), _MOST_COMPRESSION),
    )
    size = file.getbuffer().nbytes
    file.seek(0)
    return size, aligned(soundfile.read(file, dtype="float32")[0], x)


def flac_bytes(x: np.ndarray, rate: int) -> int:
    """The size in bytes of a FLAC file with 16 bits a sample, which is lossless for them."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, to_pcm(x), rate, format="FLAC", subtype="PCM_16", compression_level=0.999)
    return file.getbuffer().nbytes


def aligned(decoded: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The decoded waveform, shifted to the best correlation with x, with x's length and volume.

    The gain is that of least squares.
    """
    from scipy.signal import correlate

    decoded = np.pad(decoded, (0, max(len(x) - len(decoded), 0) + _MOST_DELAY))
    head = decoded[: len(x) + _MOST_DELAY].astype(np.float64)
    delay = int(np.argmax(correlate(head, x.astype(np.float64), "valid", "fft")))
    found = decoded[delay : delay + len(x)]
    energy = float(np.square(found, dtype=np.float64).sum())
    gain = float(np.dot(x.astype(np.float64), found)) / energy if energy else 1.0
    return found * np.float32(gain)


def to_pcm(x: np.ndarray) -> np.ndarray:
    """Samples in -1 to 1, clipped, -> int16."""
    return np.clip(np.rint(x * np.float32(32768)), -32768, 32767).astype(np.int16)


def wav(x: np.ndarray, rate: int) -> bytes:
    """Samples in -1 to 1 [n] -> a WAV file of 16 bits a sample."""
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, to_pcm(x))
    return file.getvalue()


def snr(x: np.ndarray, decoded: np.ndarray) -> float:
    """Signal-to-noise ratio in dB over all samples: 10 log10(sum x^2 / sum (x - decoded)^2)."""
    x, decoded = x.astype(np.float64), decoded.astype(np.float64)
    noise, signal = np.square(x - decoded).sum(), np.square(x).sum()
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def log_spectral_distance(x: np.ndarray, decoded: np.ndarray, rate: int) -> float:
    """Mean over windows of the root mean square difference of log spectra, in dB.

    d = mean_t sqrt(mean_f (10 log10 P_x(t, f) - 10 log10 P_y(t, f))^2)   (Gray and Markel 1976,
    "Distance measures for speech processing"), of Hann windows of 32 ms, every 16 ms. Powers are
    at least 80 dB below a sine of full scale.
    """
    from scipy.signal import stft

    size = min(round(_SECONDS * rate), len(x))
    form = {"nperseg": size, "noverlap": size // 2, "boundary": None, "padded": False}
    levels = []
    for each in (x, decoded):
        power = np.square(2 * np.abs(stft(each.astype(np.float64), rate, **form)[2]))
        levels.append(10 * np.log10(np.maximum(power, _LEAST_POWER)))
    return float(np.sqrt(np.square(levels[0] - levels[1]).mean(axis=0)).mean())

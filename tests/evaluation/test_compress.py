"""Compression: bytes that give the same codes back, in another process too, and BD-rate."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from aejax.errors import InputError
from aejax.evaluation import checkpoints, compress, compress_images, image_codecs
from aejax.evaluation.container import CodeWriter, EntropyModel, pack, step_of, unpack

RANDOM = np.random.RandomState(0)
CODES = (RANDOM.randn(2000, 5) * [1, 2, 0.1, 0, 3]).astype(np.float32)
DIGESTS = "0123456789abcdef", "00112233445566ff"


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bytes_give_the_same_codes_back_at_the_estimated_rate(bits):
    entropy = EntropyModel.fit(CODES, step_of(CODES, bits))
    rows = (RANDOM.randn(3000, 5) * [1, 2, 0.1, 0, 9]).astype(np.float32)  # some beyond the range
    symbols = entropy.quantise(rows)
    data = pack(entropy, symbols, DIGESTS)
    back = unpack("file", data, CODES, DIGESTS)
    assert np.array_equal(back, entropy.dequantise(symbols))
    inside = np.abs(rows - back)[:, :3]
    assert np.quantile(inside, 0.99) <= entropy.step / 2 + 1e-6
    header = 8 * (len(pack(entropy, symbols[:0], DIGESTS)))
    assert 8 * len(data) - header == pytest.approx(entropy.estimate(symbols), rel=0.02)


def test_the_tails_of_codes_are_kept_and_cost_others_nothing():
    heavy = RANDOM.standard_cauchy((2000, 1)).clip(-20, 20).astype(np.float32)
    entropy = EntropyModel.fit(heavy, step_of(heavy, 8))
    rare = np.array([[55.0], [-58.0], [70.0]], np.float32)  # beyond the range; beyond its double
    back = entropy.dequantise(entropy.quantise(rare))
    np.testing.assert_allclose(back[:2], rare[:2], atol=entropy.step / 2 + 1e-5)
    assert 59 < back[2, 0] < 62
    (chances,) = entropy.chances
    tails = chances.copy()
    tails[256:-256] = 0
    assert tails.sum() * (2000 + 257 + 4) == pytest.approx(2, rel=0.02)
    data = pack(entropy, entropy.quantise(rare), DIGESTS)
    assert np.array_equal(unpack("file", data, heavy, DIGESTS), back)


def test_a_step_is_found_that_needs_so_many_bytes():
    z = (RANDOM.randn(3000, 5) * [1, 2, 0.1, 0, 3]).astype(np.float32)
    coder = CodeWriter(CODES, DIGESTS)
    coded = coder.code(z, coder.step_for(z, 5000))
    assert coded.size == pytest.approx(5000, rel=0.01)
    assert coder.step_for(z, 1e9) == pytest.approx(coder.step(12), rel=1e-3)


def test_a_damaged_or_foreign_file_is_refused():
    entropy = EntropyModel.fit(CODES, 0.5)
    data = pack(entropy, entropy.quantise(CODES[:100]), DIGESTS)
    for broken, text in (
        (b"PK\3\4" + data, "is no file that launch.compress wrote"),
        (data[:20], "damaged"),
        (data[:-4], "damaged"),
        (data[:70] + bytes([data[70] ^ 1]) + data[71:], "damaged"),
        (data[:30] + bytes([data[30] ^ 1]) + data[31:], "damaged"),
        (data[:8] + b"\7" + data[9:], "version 7"),
    ):
        with pytest.raises(InputError, match=f"file: {text}"):
            unpack("file", broken, CODES, DIGESTS)
    with pytest.raises(InputError, match="file: was compressed with parameters 0123456789abcdef"):
        unpack("file", data, CODES, (DIGESTS[1], DIGESTS[1]))


def test_bd_rate_of_curves_whose_difference_is_known():
    anchor = [(rate, 20 + 6 * np.log2(rate), 0.0) for rate in (0.25, 0.5, 1.0, 2.0)]
    half = [(rate / 2, psnr, 0.0) for rate, psnr, _ in anchor]
    assert compress_images.bd_rate(anchor, half) == pytest.approx(-50)
    assert compress_images.bd_rate(half, anchor) == pytest.approx(100)
    assert compress_images.bd_rate(anchor, [(1.0, 50, 0.0), (2.0, 60, 0.0)]) is None
    assert compress_images.bd_rate(anchor, anchor[:1]) is None


def run(*words: str) -> subprocess.CompletedProcess:
    """The program, on as many devices: products over other numbers of rows have other last bits."""
    words = (sys.executable, "-m", "launch.compress", *words)
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(jax.device_count())}
    return subprocess.run(words, capture_output=True, text=True, env=env)


@pytest.mark.slow
def test_files_of_a_run_come_back_in_another_process(folder, monkeypatch):
    place, file, out = f"--workdir={folder}", folder / "rows.aejax", folder / "rows.npz"
    missing = run(place, f"--out={file}")
    assert missing.returncode == 2 and "--tasks=compress writes it" in missing.stderr
    measured = {}
    quality = image_codecs.quality

    def kept(images, made):
        measured[len(measured)] = made
        return quality(images, made)

    monkeypatch.setattr(image_codecs, "quality", kept)
    request = checkpoints.check_request(str(folder), ("compress",))
    found = checkpoints.evaluate_request(request, say=lambda line: None)["tasks"]["compress"]
    rates = [found[f"bits{bits}_bpp"] for bits in compress_images.BITS]
    assert rates == sorted(rates) and found["bits8_psnr"] > found["bits1_psnr"]
    assert found["bits4_bpp"] < found["bits4_bpp_zlib"]
    assert found["jpeg75_psnr"] > found["jpeg2_psnr"] and found["webp75_bpp"] > 0
    assert (folder / "figures/compress_psnr.png").exists()
    done = run(place, f"--out={file}", "--bits=4")
    assert done.returncode == 0, done.stderr
    assert os.path.getsize(file) * 8 / 360 / 64 == pytest.approx(found["bits4_bpp"])
    bits = 8 * (
        os.path.getsize(file)
        - len(pack(EntropyModel.fit(CODES, 1.0), np.zeros((0, 5), np.int64), DIGESTS))
    )
    assert bits / 360 / 64 == pytest.approx(found["bits4_bpp_estimated"], rel=0.02)
    done = run(place, f"--decompress={file}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        assert np.array_equal(arrays["x"], measured[compress_images.BITS.index(4)])
    done = run(place, f"--decompress={file}", f"--out={out}", "--step=10", "--overwrite")
    assert done.returncode == 2 and "was compressed with parameters" in done.stderr


def test_rows_that_are_no_images_are_refused(make):
    x = RANDOM.rand(20, 5).astype(np.float32)
    one = make(x_train=x, x_test=x)
    with pytest.raises(InputError, match="--tasks=compress: rows of shape"):
        compress.task(one.model, one.test, one.train)
    for bits in (13, 0):
        with pytest.raises(InputError, match=f"--bits={bits}: must be from 1 to 12"):
            compress.check_bits(bits)

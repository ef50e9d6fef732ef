"""Codes as bytes: uniform quantisation, entropy coding by ANS, in a file with a checksum.

Each number of a code has its own categorical model: the counts of its symbols in training codes,
plus one for each symbol in their range and for two more on either side. Beyond these, as many
symbols again on either side share one count, for heavy tails such as those of sound; values still
further out are clipped. The coder is constriction's ANS (Duda 2013), whose results are the same on
any machine.
"""

import dataclasses
import hashlib
import struct
import zlib
from typing import Any

import numpy as np

from aejax.errors import InputError

MAGIC, VERSION = b"AEJAXCOD", 2
MOST_BITS = 12
# magic, version, digest of the model, digest of the training codes, step, rows, numbers a row,
# words of the stream, CRC-32 of all other bytes
_HEADER = struct.Struct("<8sB8s8sdIIII")
_MARGIN = 2
# Bisections of the step's 12 bits, down to steps that differ by a thousandth.
_HALVINGS = 13


@dataclasses.dataclass(frozen=True)
class EntropyModel:
    """The probabilities of symbols, for one quantisation step.

    Attributes:
        step: width of a quantisation bin.
        low: each number's least symbol [numbers].
        chances: each number's probabilities of symbols, from the least symbol on.
    """

    step: float
    low: np.ndarray
    chances: list[np.ndarray]

    @classmethod
    def fit(cls, codes: np.ndarray, step: float) -> "EntropyModel":
        """Counts the symbols of training codes [rows, numbers]."""
        symbols = _rounded(codes, step)
        least, most = symbols.min(axis=0), symbols.max(axis=0)
        tail = most - least
        chances = []
        for each, first, size in zip(symbols.T, least - _MARGIN, tail, strict=True):
            count = np.bincount(each - first, minlength=size + 1 + 2 * _MARGIN) + 1.0
            rare = np.full(size, 1.0 / max(size, 1))
            count = np.concatenate([rare, count, rare])
            chances.append(count / count.sum())
        return cls(step, least - _MARGIN - tail, chances)

    def quantise(self, codes: np.ndarray) -> np.ndarray:
        """Codes [rows, numbers] -> symbols int64 [rows, numbers], 0 for each number's least."""
        most = np.array([len(each) - 1 for each in self.chances])
        return np.clip(_rounded(codes, self.step) - self.low, 0, most)

    def dequantise(self, symbols: np.ndarray) -> np.ndarray:
        """Symbols -> codes, float32 [rows, numbers]."""
        return ((symbols + self.low) * self.step).astype(np.float32)

    def estimate(self, symbols: np.ndarray) -> float:
        """Bits that the symbols need, by their probabilities."""
        pairs = zip(symbols.T, self.chances, strict=True)
        return float(-sum(np.log2(chance[each]).sum() for each, chance in pairs))

    def encode(self, symbols: np.ndarray) -> np.ndarray:
        """Symbols -> the stream, uint32."""
        coder = _ans().stack.AnsCoder()
        for number in reversed(range(len(self.chances))):
            column = np.ascontiguousarray(symbols[:, number], np.int32)
            coder.encode_reverse(column, self._model(number))
        return coder.get_compressed()

    def decode(self, stream: np.ndarray, rows: int) -> np.ndarray:
        """The stream -> symbols int64 [rows, numbers]."""
        coder = _ans().stack.AnsCoder(stream)
        columns = [coder.decode(self._model(i), rows) for i in range(len(self.chances))]
        return np.stack(columns, axis=1).astype(np.int64)

    def _model(self, number: int):
        return _ans().model.Categorical(self.chances[number], perfect=False)


def _ans() -> Any:
    """constriction's coders and models; it has no type hints."""
    import constriction

    return constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def _rounded(codes: np.ndarray, step: float) -> np.ndarray:
    return np.rint(codes.astype(np.float64) / step).astype(np.int64)


def step_of(codes: np.ndarray, bits: float) -> float:
    """The step that cuts the range of training codes into 2^bits bins."""
    width = float(np.ptp(codes.astype(np.float64), axis=0).max())
    return (width or 1.0) / 2**bits


def codes_digest(codes: np.ndarray) -> str:
    """A digest of the training codes that both sides count symbols of."""
    return hashlib.sha256(np.ascontiguousarray(codes, "<f4").tobytes()).hexdigest()[:16]


def pack(entropy: EntropyModel, symbols: np.ndarray, digests: tuple[str, str]) -> bytes:
    """A whole file.

    Args:
        entropy: of the symbols.
        symbols: [rows, numbers].
        digests: of the model and of its training codes, 16 hexadecimal digits each.
    """
    stream = entropy.encode(symbols).astype("<u4").tobytes()
    model, codes = map(bytes.fromhex, digests)
    fields = (MAGIC, VERSION, model, codes, entropy.step, *symbols.shape, len(stream) // 4)
    check = zlib.crc32(_HEADER.pack(*fields, 0) + stream)
    return _HEADER.pack(*fields, check) + stream


def unpack(name: str, data: bytes, codes: np.ndarray, digests: tuple[str, str]) -> np.ndarray:
    """The quantised codes of a file, float32 [rows, numbers].

    Args:
        name: of the file, for messages.
        data: its bytes.
        codes: training codes of the run.
        digests: of the run's model and of its training codes.

    Raises:
        InputError: not such a file, a damaged one, or one of other parameters.
    """
    if not data.startswith(MAGIC):
        raise InputError(f"{name}: is no file that launch.compress wrote")
    if len(data) < _HEADER.size:
        raise InputError(f"{name}: damaged (it ends within its header)")
    *fields, check = _HEADER.unpack(data[: _HEADER.size])
    _, version, model, table, step, rows, numbers, words = fields
    if version != VERSION:
        raise InputError(f"{name}: version {version}; this version of aejax reads {VERSION}")
    stream = data[_HEADER.size :]
    if len(stream) != 4 * words or zlib.crc32(_HEADER.pack(*fields, 0) + stream) != check:
        raise InputError(f"{name}: damaged (its bytes are not those that were written)")
    if (model.hex(), table.hex()) != digests:
        raise InputError(
            f"{name}: was compressed with parameters {model.hex()} and training codes"
            f" {table.hex()}; this checkpoint has {digests[0]} and {digests[1]}"
        )
    entropy = EntropyModel.fit(codes, step)
    symbols = entropy.decode(np.frombuffer(stream, "<u4").astype(np.uint32), rows)
    assert symbols.shape[1] == numbers
    return entropy.dequantise(symbols)


@dataclasses.dataclass(frozen=True)
class Coded:
    """Some rows as a file.

    Attributes:
        size: bytes of the file, its header included.
        estimate: bits that the symbols need by the entropy model.
        symbols: that were written, int64 [rows, numbers].
        back: the quantised codes that were read back, float32 [rows, numbers].
    """

    size: int
    estimate: float
    symbols: np.ndarray
    back: np.ndarray


@dataclasses.dataclass(frozen=True)
class CodeWriter:
    """Writes and reads files of one model's codes.

    Attributes:
        codes: of training rows [rows, numbers], to which the entropy model is fitted.
        digests: of the model and of these codes, 16 hexadecimal digits each.
    """

    codes: np.ndarray
    digests: tuple[str, str]

    def step(self, bits: float) -> float:
        """The step that cuts the range of training codes into 2^bits bins."""
        return step_of(self.codes, bits)

    def write(self, z: np.ndarray, step: float) -> bytes:
        """Codes [rows, numbers] -> a whole file."""
        entropy = EntropyModel.fit(self.codes, step)
        return pack(entropy, entropy.quantise(z), self.digests)

    def read(self, name: str, data: bytes) -> np.ndarray:
        """A whole file -> quantised codes; `name` is for messages.

        Raises:
            InputError: as `unpack`.
        """
        return unpack(name, data, self.codes, self.digests)

    def code(self, z: np.ndarray, step: float) -> Coded:
        """Codes [rows, numbers] as a file, which is read back."""
        entropy = EntropyModel.fit(self.codes, step)
        symbols = entropy.quantise(z)
        data = pack(entropy, symbols, self.digests)
        back = self.read("the bytes just written", data)
        if not np.array_equal(back, entropy.dequantise(symbols)):
            raise AssertionError("entropy coding gave other codes back")
        return Coded(len(data), entropy.estimate(symbols), symbols, back)

    def step_for(self, z: np.ndarray, size: float) -> float:
        """The step with which codes [rows, numbers] need `size` bytes, by the entropy model.

        If no step does, the finest or the coarsest.
        """
        low, high = 0.0, float(MOST_BITS)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            entropy = EntropyModel.fit(self.codes, self.step(middle))
            needed = _HEADER.size + entropy.estimate(entropy.quantise(z)) / 8
            low, high = (middle, high) if needed < size else (low, middle)
        return self.step((low + high) / 2)

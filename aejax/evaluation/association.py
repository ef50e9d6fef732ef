"""Embedding association tests: are two sets of images associated with two other sets?

    s(w, A, B) = mean_a cos(w, a) - mean_b cos(w, b)
    d          = (mean_x s(x, A, B) - mean_y s(y, A, B)) / deviation of s over X and Y

for targets X, Y (such as insects and flowers) and attributes A, B (pleasant and unpleasant). p is
the share of the partitions of X and Y into sets of these sizes whose difference of sums is at least
that of X and Y: one-sided, so that p near 1 means the opposite association. Caliskan, Bryson and
Narayanan 2017, "Semantics derived automatically from language corpora contain human-like biases"
(WEAT); Steed and Caliskan 2021, "Image Representations Learned With Unsupervised Pre-Training
Contain Human-like Biases" (iEAT).
"""

import csv
import dataclasses
import itertools
import json
import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from aejax.errors import InputError, near

# Up to this number all partitions are enumerated; of more, this number less one is drawn.
MOST_PARTITIONS = 10_000
# |d| from which an effect is called small, medium and large (Cohen 1988).
MAGNITUDES = ((0.8, "large"), (0.5, "medium"), (0.2, "small"), (0.0, "negligible"))
NOTES = (
    "d is positive where X goes with A and Y with B, in standard deviations of s; it is about these"
    " sets of images and this encoder, and says nothing about a single image or person.",
    "p is one-sided: near 0 where X and Y differ more than most partitions of the same images, near"
    " 1 where they differ the other way. A large p is no proof that there is no association.",
    "Of many tests some have a small p by chance: q is p adjusted for the number of tests"
    " (Benjamini and Hochberg 1995).",
    "What an association comes from (the data, the backgrounds, the choice of stimuli) is another"
    " question, and so is what a classifier on these codes would do.",
)


@dataclasses.dataclass(frozen=True)
class Association:
    """The result of one test.

    Attributes:
        d: effect size; NaN where s is the same for all images.
        p: one-sided.
        exact: whether all partitions were enumerated.
        targets: images in X, and in Y.
        attributes: images in A, and in B.
    """

    d: float
    p: float
    exact: bool
    targets: tuple[int, int]
    attributes: tuple[int, int]

    @property
    def magnitude(self) -> str:
        """The effect size in a word."""
        if math.isnan(self.d):
            return "undefined"
        return next(word for least, word in MAGNITUDES if abs(self.d) >= least)


def association(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int = 0
) -> Association:
    """Tests whether x goes with a, and y with b.

    Args:
        x: embeddings of the first set of targets, [images, numbers].
        y: of the second.
        a: of the first set of attributes.
        b: of the second.
        seed: of the partitions, where these are drawn.

    Raises:
        ValueError: an empty set, or an embedding of length 0.
    """
    sets = [_directions(values) for values in (x, y, a, b)]
    first, second = (_mean_cosine(each, sets[2]) - _mean_cosine(each, sets[3]) for each in sets[:2])
    s = np.concatenate([first, second])
    deviation = s.std(ddof=1)
    d = (first.mean() - second.mean()) / deviation if deviation > 0 else math.nan
    p, exact = _share_at_least(s, len(first), np.random.default_rng(seed))
    targets, attributes = (len(first), len(second)), (len(sets[2]), len(sets[3]))
    return Association(float(d), p, exact, targets, attributes)


def _directions(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    if not len(values):
        raise ValueError("a set without images")
    if not (np.isfinite(norm).all() and (norm > 0).all()):
        row = int(np.argmin(np.isfinite(norm[:, 0]) & (norm[:, 0] > 0)))
        raise ValueError(f"row {row} is all 0 or not finite, and has no direction")
    return values / norm


def _mean_cosine(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean cosine of each of `values` to all of `others`."""
    return values @ others.mean(axis=0)


def _share_at_least(s: np.ndarray, count: int, draw: np.random.Generator) -> tuple[float, bool]:
    """The share of partitions whose difference of sums is at least that of the first `count`.

    The difference of sums is 2 sum_X s - sum s, so that it is enough to compare sums over X. Sums
    that differ only by rounding count as equal.
    """
    observed = s[:count].sum() - 1e-12 * np.abs(s).sum()
    exact = math.comb(len(s), count) <= MOST_PARTITIONS
    if exact:
        chosen = np.array(list(itertools.combinations(range(len(s)), count)))
        return float(np.mean(s[chosen].sum(axis=1) >= observed)), True
    drawn = np.argsort(draw.random((MOST_PARTITIONS - 1, len(s))), axis=1)[:, :count]
    # The observed partition counts as one of the draws, so that p is never 0.
    return float((np.sum(s[drawn].sum(axis=1) >= observed) + 1) / MOST_PARTITIONS), False


def adjusted(p: Sequence[float]) -> list[float]:
    """p adjusted for the number of tests: of those with q < 0.05, 5 % are false discoveries."""
    from scipy.stats import false_discovery_control

    return [float(each) for each in false_discovery_control(np.asarray(p))]


def read_tests(path: str) -> dict[str, tuple[str, str, str, str]]:
    """{test: categories X, Y, A, B} of a JSON file.

    Raises:
        InputError: no such file, or not of this form.
    """
    try:
        with open(path, encoding="utf-8") as file:
            tests = json.load(file)
    except OSError as error:
        raise InputError(f"--tests={path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"--tests={path}: is no JSON ({error})") from None
    if not isinstance(tests, dict) or not tests:
        raise InputError(f'--tests={path}: must be {{"NAME": ["X", "Y", "A", "B"], ...}}')
    for name, sets in tests.items():
        four = isinstance(sets, list) and len(sets) == 4
        if not four or not all(isinstance(each, str) for each in sets):
            raise InputError(f'--tests={path}: {name}: must be ["X", "Y", "A", "B"]')
    return {name: tuple(sets) for name, sets in tests.items()}


def read_embeddings(path: str) -> dict[str, np.ndarray]:
    """{category: [images, numbers]} of an .npz or a .csv file.

    In an .npz an array has the name of its category, with __ for /. In a .csv each row is an image;
    the column `category` has its category, the columns of numbers are its embedding, and `file`, if
    there is one, is left out.

    Raises:
        InputError: no such file, or not of this form.
    """
    try:
        if path.endswith(".csv"):
            return _read_csv(path)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name.replace("__", "/"): arrays[name] for name in arrays.files}
    except OSError as error:
        raise InputError(f"--embeddings={path}: {error.strerror or error}") from None
    except (ValueError, KeyError, csv.Error, zlib.error) as error:
        raise InputError(f"--embeddings={path}: {error}; must be an .npz or a .csv") from None
    for name, values in found.items():
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            raise InputError(
                f"--embeddings={path}: {name} is {values.dtype}{list(values.shape)}; must be"
                " numbers [images, numbers]"
            )
    return found


def _read_csv(path: str) -> dict[str, np.ndarray]:
    found: dict[str, list[list[float]]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            category = row.pop("category")
            row.pop("file", None)
            found.setdefault(category, []).append([float(value) for value in row.values()])
    return {name: np.array(rows) for name, rows in found.items()}


def run_tests(
    tests: dict[str, tuple[str, str, str, str]],
    embeddings: Callable[[str], np.ndarray],
    seed: int = 0,
) -> dict[str, Association]:
    """The results of all tests.

    Args:
        tests: {test: categories X, Y, A, B}.
        embeddings: category -> [images, numbers].
        seed: of drawn partitions; each test has draws of its own.

    Raises:
        InputError: a category whose embeddings cannot be compared.
    """
    out = {}
    for name, categories in tests.items():
        try:
            sets = [embeddings(category) for category in categories]
            out[name] = association(*sets, seed=seed + zlib.crc32(name.encode()))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"test {name} ({', '.join(categories)}): {error}") from None
    return out


def category(found: dict[str, np.ndarray], where: str, name: str) -> np.ndarray:
    """The embeddings of one category.

    Raises:
        InputError: there is none.
    """
    if name not in found:
        hint = near(name, found)
        raise InputError(f"{where}: there is no category {name!r} among {len(found)}{hint}")
    return found[name]

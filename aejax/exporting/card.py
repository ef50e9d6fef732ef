"""The model card: a model's architecture, its training data, its metrics and their limits."""

import math
from typing import Any

import jax

from aejax.evaluation import records
from aejax.evaluation.result import shown
from aejax.exporting.functions import Functions, RowFunctions
from aejax.runs import manifests

FILE = "card.md"
_UNITS = {
    "symbols": "the share of a row's symbols that the reconstruction has wrong",
    "mahalanobis": "the Mahalanobis distance of the code to codes of training rows",
    "knn": "the mean distance of the code to its nearest codes of training rows",
}

# Suffixes of the names of an interval's ends.
_ENDS = ("_low", "_high")


def card(workdir: str, functions: RowFunctions, loading: list[str]) -> str:
    """The card as Markdown.

    Args:
        workdir: the run's folder, for its evaluations.
        functions: what is exported.
        loading: for each format, Markdown that says how to read its files.
    """
    model = functions.model
    parts = [
        "# Model card",
        f"{str(model).strip('<>').removeprefix('aejax.Model: ').capitalize()}.",
        _table(_facts(functions)),
        "## Measured",
        _measured(workdir, functions),
        "## Limits",
        "\n".join(f"- {each}" for each in _limits(functions)),
        "## Load",
        "\n".join(loading).rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(functions: RowFunctions) -> list[tuple[str, str]]:
    model, spec = functions.model, functions.spec
    data, shape = model.run.config.data, ", ".join(map(str, spec.shape))
    labels = ", ".join(map(str, data.keep_labels))
    code = ", ".join(map(str, model.code_shape))
    reach = f"0 to {spec.maximum:g}" if spec.maximum is not None else "real numbers"
    columns = [name if each is None else f"{name}={each}" for name, each in spec.elements]
    missing = "; NaN is a missing value" if spec.missing else ""
    named = [("elements", ", ".join(columns))] if columns else []
    return [
        ("trained on", f"`{data.source}`, split `{data.train}`, {model.run.rows} rows"),
        ("labels of these rows", labels if labels else "all"),
        ("raw row", f"{spec.dtype} [rows, {shape}], {reach}, as the source stores it{missing}"),
        *named,
        ("preparation, inside the files", _preparation(functions)),
        ("code", f"float32 [rows, {code}]"),
        *_gives(functions),
        ("written with", f"JAX {jax.__version__}"),
    ]


def _gives(functions: RowFunctions) -> list[tuple[str, str]]:
    """What the files give beside codes."""
    shape = ", ".join(map(str, functions.spec.shape))
    if isinstance(functions, Functions):
        return [
            ("reconstruction", f"float32 [rows, {shape}], {_units(functions)}"),
            ("score", _score(functions)),
            *_deviations(functions),
            ("flagged", _flagged(functions)),
        ]
    count = functions.model.run.config.model.classes
    known = functions.spec.classes
    names = [known[k] if k < len(known) else str(k) for k in range(count)]
    return [
        ("probabilities", f"float32 [rows, {count}], p(label given the row); each row sums to 1"),
        ("classes, in this order", ", ".join(names)),
    ]


def _preparation(functions: RowFunctions) -> str:
    settings, steps = functions.model.run.config.data.prepare, _before_centring(functions)
    if settings.centre != "none":
        steps.append("each element's training mean is subtracted")
    if settings.centre == "standardise":
        steps.append("each element is divided by its training deviation")
    if functions.spec.missing:
        steps.append("missing values become 0")
    return "; ".join(steps) if steps else "none"


def _before_centring(functions: RowFunctions) -> list[str]:
    """The steps of the preparation up to the units of the reconstruction."""
    settings, spec = functions.model.run.config.data.prepare, functions.spec
    statistics, steps = functions.model.run.statistics, []
    if settings.scale:
        low, high = (
            (0, spec.maximum)
            if spec.maximum is not None
            else (statistics["low"], statistics["high"])
        )
        steps.append(f"{low:g} to {high:g} becomes 0 to 1")
    if settings.binarise != "none":
        steps.append("what is above one half becomes 1, the rest 0")
    return steps


def _units(functions: Functions) -> str:
    config = functions.model.run.config
    if config.model.symbols:
        return "symbols as whole numbers"
    return "where 0 to 1 is the range of raw rows" if config.data.prepare.scale else "as raw rows"


def _score(functions: Functions) -> str:
    kind = "error" if functions.detector is None else functions.detector.score
    if kind == "error" and functions.model.run.config.model.symbols:
        kind = "symbols"
    what = _error(functions) if kind == "error" else _UNITS[kind]
    return f"{what}; larger is stranger"


def _error(functions: Functions) -> str:
    """The reconstruction error as a formula of the raw row and the reconstruction."""
    steps = _before_centring(functions)
    x = f"the raw row ({'; '.join(steps)})" if steps else "the raw row"
    present = " that are not missing" if functions.spec.missing else ""
    mean = f"the mean over a row's elements{present} of"
    if _in_deviations(functions):
        return (
            f"{mean} ((x - r) / d)^2, where x is {x}, r the reconstruction and d the training"
            " deviation of each element: in squared deviations"
        )
    return f"{mean} (x - r)^2, where x is {x} and r the reconstruction"


def _in_deviations(functions: Functions) -> bool:
    """Whether errors are measured in training deviations: of standardised tables alone."""
    standardised = functions.model.run.config.data.prepare.centre == "standardise"
    return standardised and bool(functions.spec.columns)


def _deviations(functions: Functions) -> list[tuple[str, str]]:
    """The deviations that the score needs, to nine digits, which give a float32 exactly."""
    if not _in_deviations(functions):
        return []
    found = functions.model.run.statistics["deviation"]
    numbers = ", ".join(f"{each:.9g}" for each in found)
    return [("training deviations, in the order of the elements", numbers)]


def _flagged(functions: Functions) -> str:
    detector = functions.detector
    if detector is None or detector.threshold is None:
        return "never: the run keeps no threshold (launch.evaluate --tasks=anomaly makes one)"
    record = detector.record
    labels = f" of labels {', '.join(map(str, record['normal']))}" if record["normal"] else ""
    return (
        f"a score above {detector.threshold:.8g}, which further normal rows{labels} exceed at"
        f" a rate of {record['false_alarms']:g} at most (split conformal,"
        f" {record['calibration_rows']} rows)"
    )


def _measured(workdir: str, functions: RowFunctions) -> str:
    model = functions.model
    identity = manifests.identity(workdir, model.step)
    kind = "ema" if model.averaged else "params"
    lines = []
    for record in records.read(workdir):
        if (record["checkpoint"], record["parameters"]) != (identity, kind):
            continue
        where = f"`{record['source']}`, {record['split']}, {record['rows']} rows"
        for task, numbers in record["tasks"].items():
            kept = {n: value for n, value in numbers.items() if not n.endswith(_ENDS)}
            percent = record.get("percent", {}).get(task, ())
            found = ", ".join(f"{name} {shown(kept[name], name in percent)}" for name in kept)
            lines.append((f"{task} ({where})", found))
    if not lines:
        return "Nothing: this checkpoint was not evaluated."
    return f"{_table(lines)}\n\n`evaluation.json` in the run's folder has the ends of intervals."


def _limits(functions: RowFunctions) -> list[str]:
    model = functions.model
    labels = f" with labels {list(kept)}" if (kept := model.run.config.data.keep_labels) else ""
    known = f"It knows the {model.run.rows} rows{labels} that it was trained on and rows like them;"
    if isinstance(functions, Functions):
        return [
            f"{known} of others its codes and reconstructions say little.",
            *_limits_of_autoencoder(functions),
        ]
    return [
        f"{known} of others its probabilities say little, and a row of no class gets some too.",
        "Probabilities are the model's own, as training left them: they are not calibrated, and a"
        " row that is classified wrongly can have a large one.",
    ]


def _limits_of_autoencoder(functions: Functions) -> list[str]:
    model, detector = functions.model, functions.detector
    elements, code = math.prod(functions.spec.shape), math.prod(model.code_shape)
    limits = [
        f"{elements} elements become {code} numbers: what is lost is not marked in a"
        " reconstruction.",
        "A score is no probability, and no cause: it ranks rows by how badly this model fits them."
        " Rows that are simple can fit well though they are strange.",
    ]
    if detector is not None and detector.threshold is not None:
        limits.append(
            "The rate of false alarms holds for rows drawn as those that set the threshold were."
            " Nothing is promised of how many strange rows are found, nor once the data change."
        )
    return limits


def _table(lines: list[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in lines)])

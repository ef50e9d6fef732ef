"""A live model from a run's folder, for a notebook and for every evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax import kinds, models, registry
from aejax.config import Config
from aejax.data.order import batches
from aejax.data.prepare import Preparation
from aejax.data.sources import checks
from aejax.data.sources.base import Rows, Spec
from aejax.errors import InputError
from aejax.mesh import all_rows, by_row, replicated_over, with_sharding
from aejax.models import bottlenecks
from aejax.models.batch import Batch, batch_mask, real_steps, split, spread
from aejax.runs import checkpoint, folder, manifests

_ROWS_AT_A_TIME = 1000
_DECODE = ("decode", "reconstruct", "score")


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model and what prepares its data.

    Attributes:
        run: the folder's settings, and the rows that it was trained on.
        step: updates of the checkpoint.
        averaged: whether these are the averaged (EMA) parameters.
        module: the live Flax module; its `encode` and `decode` take prepared rows.
        preparation: raw rows -> x.
    """

    run: folder.Run
    step: int
    averaged: bool
    module: Any
    preparation: Preparation

    @functools.cached_property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of one row's code."""
        row = jax.ShapeDtypeStruct((1, *self.run.spec.shape), self.run.spec.dtype)
        return jax.eval_shape(lambda raw: self.module.encode(self.preparation(raw)), row).shape[1:]

    def encode(self, raw: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """Raw rows [rows, *shape], as the source stores them -> codes [rows, latent].

        Args:
            raw: rows.
            length: [rows], how much of each row's first axis is real; None for all.
        """
        return self._over("encode", *self._checked(raw, length))

    def decode(self, z: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """Codes [rows, latent] -> means [rows, *shape], in [0, 1] where the data were scaled.

        Of a masked model codes are tokens, [rows, tokens, width]. `length` as in `encode`: it is no
        part of the code.
        """
        z, shape = np.asarray(z, np.float32), self.code_shape
        if z.ndim < 2 or z.shape[1:] != shape or not len(z):
            takes = ", ".join(map(str, ("rows", *shape)))
            raise InputError(f"codes have shape {z.shape}; this model takes ({takes})")
        return self._over("decode", z, self._lengths(z, length))

    def reconstruct(self, raw: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """Raw rows -> what the code keeps of them, [rows, *shape], in `decode`'s units."""
        return self._over("reconstruct", *self._checked(raw, length))

    def classify(self, raw: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """Raw rows -> p(label given x) [rows, classes], of a classifier.

        Raises:
            InputError: the model is none.
        """
        if not self.run.config.model.classes:
            raise InputError(
                f"classify: model={models.KINDS.name(self.run.config.model)} has no classes;"
                " accepted: classifier"
            )
        return self._over("classify", *self._checked(raw, length))

    def sample(self, rows: int, seed: int = 0) -> np.ndarray:
        """Rows that the decoder makes of codes drawn from the prior, [rows, *shape].

        Args:
            rows: how many.
            seed: of the draws.

        Raises:
            InputError: the model has no prior; `launch.evaluate --tasks=generate` draws codes
                from a mixture of normals fitted to those of rows.
        """
        if not isinstance(rows, int) or rows < 1:
            raise InputError(f"sample({rows!r}): must be a whole number, at least 1")
        codes = self.prior(rows, seed)
        if codes is None:
            settings = self.run.config.model
            name = f"model={models.KINDS.name(settings)}"
            if settings.bottleneck is not None:
                name = f"model.bottleneck={bottlenecks.KINDS.name(settings.bottleneck)}"
            raise InputError(
                f"sample: {name} has no prior to draw codes from; accepted: variational, rbm,"
                " deep_belief (launch.evaluate --tasks=generate fits a mixture to codes)"
            )
        return self.decode(codes)

    def prior(self, rows: int, seed: int = 0) -> np.ndarray | None:
        """Codes drawn from the prior [rows, *code], or None where the model has none.

        Args:
            rows: how many.
            seed: of the draws.
        """
        settings, shape = self.run.config.model, (rows, *self.code_shape)
        graph, state = nnx.split(self.module)

        @jax.jit
        def draw(state: Any, key: jax.Array) -> jax.Array | None:
            return settings.prior(nnx.merge(graph, state), key, shape)

        codes = draw(state, jax.random.key(seed))
        return None if codes is None else np.asarray(codes)

    def score(self, raw: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """How badly each row is reconstructed, float32 [rows]: larger is stranger.

        The mean squared error of a row's prepared elements (scaled or standardised as the run's
        settings say), without padding and missing values; of symbols the share that is wrong.
        """
        raw, length = self._checked(raw, length)
        return self._over("score", raw, length)

    def row_errors(
        self, x: jax.Array, decoded: jax.Array, real: jax.Array | None = None
    ) -> jax.Array:
        """The error of each row as `score` has it, [rows]; pure, for functions under `jax.jit`.

        Args:
            x: prepared rows.
            decoded: what the decoder makes of their codes, of the same shape.
            real: bool, a prefix of their shape: what counts; None for all.
        """
        measured, rows = self.preparation.measured, len(x)
        pair = [measured(each).reshape(rows, -1) for each in (x, decoded)]
        if self.run.config.model.symbols:
            error = (pair[0] != pair[1]).astype(jnp.float32)
        else:
            error = jnp.square(pair[0] - pair[1])
        if real is None:
            return jnp.mean(error, axis=1)
        weight = (spread(real, x.ndim) * jnp.ones(x.shape)).reshape(rows, -1)
        return jnp.sum(error * weight, axis=1) / jnp.sum(weight, axis=1)

    def __repr__(self) -> str:
        """What the model is, in one line."""
        model, spec = self.run.config.model, self.run.spec
        count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self.module, nnx.Param)))
        parts = [models.KINDS.name(model)]
        for field in dataclasses.fields(model):
            table = kinds.kinds_of(field)
            if table is not None and getattr(model, field.name) is not None:
                parts.append(f"{field.name} {table.name(getattr(model, field.name))}")
        return (
            f"<aejax.Model: {', '.join(parts)}; rows {spec.shape} {spec.dtype} -> codes"
            f" {self.code_shape}; {count:,} parameters{' (EMA)' if self.averaged else ''},"
            f" step {self.step}>"
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows -> x [rows, *shape], float32, as the model sees them in evaluation."""
        return self._over("prepare", *self._checked(raw))

    def batched_apply(self, function: Callable[..., Any], *rows: np.ndarray, size: int = 0) -> Any:
        """Applies a jitted function of rows, in batches over all of this process's devices.

        Args:
            function: arrays [n, ...] -> tree of [n, ...]; called with one n only.
            rows: arrays [rows, ...].
            size: rows of a batch, rounded up to what the devices divide; 0 for all, up to 1000. The
                last batch is filled up, and cut again.
        """
        devices, count = jax.local_devices(), len(rows[0])
        size = -(-(size or min(_ROWS_AT_A_TIME, max(count, 1))) // len(devices)) * len(devices)
        placed = all_rows(devices)
        out = []
        for index, mask in zip(*batches(count, size), strict=True):
            real = int(mask.sum())
            # All but the last are slices, which copy nothing.
            chosen = index if real < len(index) else slice(index[0], index[0] + real)
            values = function(*jax.device_put([each[chosen] for each in rows], placed))
            values = jax.device_get(values)
            out.append(jax.tree.map(lambda leaf, n=real: leaf[:n], values))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *out)

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a pure function (parameters, *arrays of rows) -> tree of rows, each by itself.

        Where the compiler would not divide the rows of this model over the devices, each device is
        given its own.
        """
        shared = self.run.config.model.gradient_by_device
        return jax.jit(by_row(function, jax.local_devices()) if shared else function)

    def _over(self, name: str, rows: np.ndarray, length: np.ndarray | None) -> np.ndarray:
        model = self.run.config.model
        if name in _DECODE and not model.decodes:
            raise InputError(f"{name}: model={models.KINDS.name(model)} has no decoder")
        return self.batched_apply(
            self._functions[name], rows, *(() if length is None else (length,))
        )

    def _lengths(self, rows: np.ndarray, length: np.ndarray | None) -> np.ndarray | None:
        if length is None:
            return None
        length = np.asarray(length)
        most = self.run.spec.shape[0]
        if length.shape != (len(rows),) or not 1 <= length.min() <= length.max() <= most:
            raise InputError(f"length={length}: must be one number a row, each from 1 to {most}")
        return length.astype(np.int32)

    def _checked(
        self, raw: np.ndarray, length: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows with 0 for padding, and their lengths."""
        raw, spec = np.asarray(raw), self.run.spec
        if raw.shape[1:] != spec.shape or not len(raw):
            raise InputError(f"rows have shape {raw.shape}; this model takes (rows, *{spec.shape})")
        given, maximum = raw.dtype, spec.maximum
        if given != np.dtype(spec.dtype):
            raw, maximum = checks.stored(raw, "rows", missing=spec.missing)
        if (raw.dtype, maximum) != (np.dtype(spec.dtype), spec.maximum):
            raise InputError(
                f"rows are {given}; this model was trained on {spec.dtype}, on which other numbers"
                " may have another range"
            )
        rows = Rows(raw, None, self._lengths(raw, length))
        return rows.x, rows.length

    @functools.cached_property
    def _functions(self) -> dict[str, Callable]:
        prepare, spec = self.preparation, self.run.spec

        def mask(raw: jax.Array, length: tuple[jax.Array, ...]) -> jax.Array | None:
            return batch_mask(raw, length[0] if length else None, spec.shape, spec.missing)

        def steps(length: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return tuple(real_steps(each, spec.shape[0]) for each in length)

        def encode(module: Any, raw: jax.Array, *length: jax.Array) -> jax.Array:
            return module.encode(prepare(raw), mask(raw, length))

        def decode(module: Any, z: jax.Array, *length: jax.Array) -> jax.Array:
            return prepare.inverse(module.decode(z, *steps(length)))

        def reconstruct(module: Any, raw: jax.Array, *length: jax.Array) -> jax.Array:
            return decode(module, encode(module, raw, *length), *length)

        def score(module: Any, raw: jax.Array, *length: jax.Array) -> jax.Array:
            x, real = prepare(raw), mask(raw, length)
            decoded = module.decode(module.encode(x, real), *steps(length))
            return self.row_errors(x, decoded, real)

        def classify(module: Any, raw: jax.Array, *length: jax.Array) -> jax.Array:
            return module.classify(prepare(raw), mask(raw, length))

        functions = {
            "classify": classify,
            "prepare": lambda module, raw: prepare(raw),
            "encode": encode,
            "decode": decode,
            "reconstruct": reconstruct,
            "score": score,
        }
        graph, state = nnx.split(self.module)
        # Parameters are an argument: closed over, they would be constants that XLA has to compile.
        return {
            name: functools.partial(self.jit(_pure(function, graph)), state)
            for name, function in functions.items()
        }


def _pure(function: Callable, graph: nnx.GraphDef) -> Callable:
    """The pure function of (parameters, rows and what comes with them)."""
    return lambda state, *rows: function(nnx.merge(graph, state), *rows)


def load(
    workdir: str,
    step: int | str = "latest",
    say: Callable[[str], None] = print,
    model: Any = None,
    parts: Iterable[type] = (),
) -> Model:
    """A live model from a run's folder, on any number of devices.

    Args:
        workdir: the run's folder.
        step: a number, "latest" or "best" (by config.evaluation.metric).
        say: is called with a line for each damaged checkpoint that is skipped.
        model: the model's settings, in place of those that the folder names.
        parts: classes of parts from outside of aejax that the folder may name.

    Raises:
        InputError: no run there, no such step, or a damaged checkpoint, named file by file.
    """
    registry.use(parts)
    folder.check_path(workdir)
    run = folder.read(workdir, model)
    while True:
        number = choose(workdir, step, say)
        try:
            return _load(workdir, run, number)
        except (InputError, OSError, ValueError):
            if number in manifests.steps(workdir):
                raise
            # A run that goes on has removed this step: its newest stands.


def _load(workdir: str, run: folder.Run, number: int) -> Model:
    """A live model of a step that is whole."""
    part = "ema" if manifests.shapes(workdir, number, "ema") else "params"
    batch = abstract_batch(run.config, run.spec)
    module = nnx.eval_shape(lambda: run.config.model.init(nnx.Rngs(0), batch))
    graph, params, model_state = split(module)
    whole = replicated_over(jax.devices())
    target = {part: params, "model_state": model_state}
    target = with_sharding(target, whole)
    # Nothing is donated, so that on CPUs the devices may share the memory of the parameters.
    read = checkpoint.load(workdir, number, target, shared=True)
    preparation = Preparation(run.config.data.prepare, run.spec, run.statistics)
    module = nnx.merge(graph, read[part], read["model_state"]["rows"], read["model_state"]["other"])
    return Model(run, number, part == "ema", module, preparation)


def abstract_batch(config: Config, spec: Spec) -> Batch:
    """One global batch of such rows, shapes and types alone."""
    rows = config.batch_size
    x: Any = jax.ShapeDtypeStruct((rows, *spec.shape), np.float32)
    number: Any = jax.ShapeDtypeStruct((rows,), np.int32)
    real = spec.shape if spec.missing else spec.shape[:1] if spec.padded else None
    mask: Any = None if real is None else jax.ShapeDtypeStruct((rows, *real), np.bool_)
    return Batch(x, mask, number if spec.labelled else None, number)


def choose(workdir: str, step: int | str, say: Callable[[str], None]) -> int:
    """The number of a step given as a number, "latest" or "best"; it is whole.

    Raises:
        InputError: there is none, or it is damaged.
    """
    there = manifests.steps(workdir)
    if step == "latest":
        found = manifests.newest_good(workdir, say)
        if found is None:
            raise InputError(f"--workdir={workdir}: holds no checkpoint that is whole")
        return found
    if step == "best":
        newest = choose(workdir, "latest", say)
        best = manifests.progress(workdir, newest).best
        if best is None:
            raise InputError(f"--step=best: {workdir} has not been evaluated yet; try latest")
        step = best["step"]
    if not isinstance(step, int) or step not in there:
        known = ", ".join(map(str, there)) or "none"
        raise InputError(f"--step={step}: must be latest, best, or one of {known}")
    try:
        manifests.verify(workdir, step)
    except manifests.DamagedError:
        if step in manifests.steps(workdir):
            raise
        raise InputError(f"--step={step}: the run in {workdir} has removed it meanwhile") from None
    return step

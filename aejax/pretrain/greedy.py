"""Greedy layer-wise pre-training: each layer is trained on the codes of the layers below it.

Stage k trains layer k while those below it are frozen; stage 1 is trained on the data. The stages'
parameters initialise the whole model:

    a deep autoencoder     all encoder layers, and their mirrors as decoder (Hinton and
                           Salakhutdinov 2006), x - 1000 - 500 - 30 - 500 - 1000 - x
    a classifier           all encoder layers, with a fresh head (Bengio et al. 2007; with a
                           corruption in each stage Vincent et al. 2010)
    a deep belief network  restricted Boltzmann machines as directed layers, and the last one as it
                           is (Hinton et al. 2006)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax import kinds, optimizer
from aejax.config import Config, Pretraining, check, steps_of
from aejax.errors import InputError, check_least
from aejax.kinds import part
from aejax.models import Autoencoder, Batch, DeepBelief, corruption, penalties
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.optimizer import Adam
from aejax.pretrain.layers import Layer, autoencoder, in_interval, insert, layers, machine
from aejax.registry import required

METHODS = ("autoencoder", "rbm", "none")


class Stages(Pretraining):
    """Base of pre-training in stages. Required: `stages` and `unrolled`.

    Attributes:
        duration: of each stage.
    """

    duration: str

    def check(self, config: Config) -> None:
        """Raises InputError if it does not fit a run."""
        steps_of("pretrain.duration", self.duration, config.batch_size, config.batch_size)

    @required()
    def stages(self, config: Config) -> list[Config]:
        """The settings of each stage's own run; from the second on its rows are codes."""
        raise NotImplementedError

    @required()
    def unrolled(
        self, config: Config, shape: tuple[int, ...], modules: Sequence[Any]
    ) -> nnx.Module:
        """The run's module with the stages' parameters; all other parameters are abstract.

        Args:
            config: the run's settings.
            shape: of a prepared row.
            modules: the trained module of each stage.
        """
        raise NotImplementedError

    def initial_params(self, run_setup: Any, workdir: str, options: dict[str, Any]) -> Any:
        """Trains the stages, or continues them; see `aejax.pretrain.run.train_stages`."""
        from aejax.pretrain.run import train_stages

        return train_stages(run_setup, workdir, options)


@dataclasses.dataclass
class Greedy(Stages):
    """One stage for each layer of the run's model, the first one nearest to the data.

    Attributes:
        duration: of each stage.
        optimizer: of each stage: adam | adamw | adadelta | sgd, with its own settings.
        by: what trains a layer: autoencoder, rbm, or none for no stage; one for all layers, or one
            for each. All layers above one with none have none.
        corruption: what is done to an autoencoder's input in training.
        penalty: terms that are added to an autoencoder's loss.
        tied: encoder and decoder of a stage share one weight; the deep model's weights then differ.
        k: steps of Gibbs sampling in each update of a machine.
        persistent: whether a machine's chains continue from update to update.
    """

    duration: str = "10 epochs"
    optimizer: Any = part(optimizer.KINDS, Adam)
    by: tuple[str, ...] = ("autoencoder",)
    corruption: Any = part(corruption.KINDS, lambda: None)
    penalty: Any = part(penalties.KINDS, lambda: None)
    tied: bool = False
    k: int = 1
    persistent: bool = False

    def __post_init__(self):
        self.by = tuple(self.by)
        if not self.by or not {*self.by} <= {*METHODS}:
            by = ",".join(self.by)
            raise ValueError(f"by={by}: must be one or more of {', '.join(METHODS)}")
        check_least("k", self.k, 1)

    def check(self, config: Config) -> None:
        super().check(config)
        if config.init_from:
            raise InputError(
                "config.pretrain: greedy gives the first parameters;"
                f" config.init_from={config.init_from} does too"
            )
        found = layers(config.model)
        if len(found) < 1 + isinstance(config.model, Autoencoder):
            raise InputError(
                "config.pretrain: greedy needs model.coder=dense or convolutional (an autoencoder's"
                " with hidden layers, coder.hidden), or model=deep_belief"
            )
        if len(self.by) not in (1, len(found)):
            raise InputError(
                f"config.pretrain.by={','.join(self.by)}: must be one, or one for each of the"
                f" {len(found)} layers"
            )
        trained = [method != "none" for method in self._methods(found)]
        if trained != sorted(trained, reverse=True):
            raise InputError(
                f"config.pretrain.by={','.join(self.by)}: above a layer with none all others must"
                " have none"
            )
        if isinstance(config.model, DeepBelief) and "autoencoder" in self.by:
            raise InputError(
                f"config.pretrain.by={','.join(self.by)}: layers of model=deep_belief are machines;"
                " must be rbm or none"
            )
        try:
            stages = self.stages(config)
        except ValueError as error:
            raise InputError(f"config.pretrain: {error}") from None
        for number, stage in enumerate(stages, start=1):
            try:
                check(stage)
            except InputError as error:
                raise InputError(f"config.pretrain: stage {number}: {error}") from None

    def unused(self, config: Config) -> list[str]:
        """Settings that none of the stages would look at."""
        found, out = layers(config.model), []
        each = list(zip(self._methods(found), found, strict=True))
        autoencoders = [layer for method, layer in each if method == "autoencoder"]
        users = {
            ("corruption", "penalty"): ("autoencoder", bool(autoencoders)),
            ("tied",): (
                "autoencoder with a dense layer",
                not all(one.kernel for one in autoencoders),
            ),
            ("k", "persistent"): ("rbm", "rbm" in dict(each)),
        }
        usual = kinds.to_dict(type(self)())
        for names, (user, used) in users.items():
            for name in names:
                value = kinds.to_dict(self)[name]
                if not used and value != usual[name]:
                    value = value["kind"] if isinstance(value, dict) else value
                    out.append(
                        f"config.pretrain.{name}={value}: is for stages by {user}, and"
                        f" config.pretrain.by={','.join(self.by)} has none"
                    )
        return out

    def stages(self, config: Config) -> list[Config]:
        models = self._models(config)
        return [
            self._stage(config, model, models[k - 1] if k else None)
            for k, model in enumerate(models)
        ]

    def _methods(self, found: list[Layer]) -> tuple[str, ...]:
        return self.by * len(found) if len(self.by) == 1 else self.by

    def _models(self, config: Config) -> list[Any]:
        """The model of each stage; raises ValueError if a layer cannot be trained by one."""
        found, models = layers(config.model), []
        for k, (layer, method) in enumerate(zip(found, self._methods(found), strict=True)):
            likelihood = found[k - 1].likelihood if k else _of_data(config)
            if method == "autoencoder":
                options = self.corruption, self.penalty, self.tied
                models.append(autoencoder(layer, likelihood, *options))
            elif method == "rbm":
                models.append(machine(layer, likelihood, self.k, self.persistent))
        return models

    def _stage(self, config: Config, model: Any, below: Any) -> Config:
        data = dataclasses.replace(config.data, labels="")
        if below is not None:
            # Codes are not scaled further: where they are bounded, their maximum is 1.
            prepare = type(data.prepare)(scale=in_interval(below))
            data = dataclasses.replace(data, prepare=prepare)
        return dataclasses.replace(
            config,
            model=model,
            data=data,
            optimizer=self.optimizer,
            duration=self.duration,
            evaluation=dataclasses.replace(config.evaluation, metric="loss", patience=0),
            mesh=dataclasses.replace(config.mesh, rules=()),  # they name the deep model's layers
            profile="",
            pretrain=None,
        )

    def unrolled(
        self, config: Config, shape: tuple[int, ...], modules: Sequence[Any]
    ) -> nnx.Module:
        """The deep model with the parameters of the trained stages."""
        row: Any = jax.ShapeDtypeStruct((config.batch_size, *shape), np.float32)
        label: Any = jax.ShapeDtypeStruct((config.batch_size,), np.int32)
        batch = Batch(row, None, label if config.model.classes else None)
        deep = nnx.eval_shape(lambda: config.model.init(nnx.Rngs(0), batch))
        insert(deep, list(modules))
        return deep


def _of_data(config: Config) -> Any:
    """The likelihood of the data."""
    if isinstance(config.model, Autoencoder):
        return config.model.likelihood
    prepare = config.data.prepare
    return Bernoulli() if prepare.scale and prepare.centre == "none" else Gaussian()

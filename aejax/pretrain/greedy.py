"""Greedy layer-wise training: a stack of shallow autoencoders, unrolled into one deep one.

Stage k is an autoencoder of one layer each way. It learns the codes of the stages below it, which
stay as they are; the first one learns the data. Unrolled, the stages' encoders follow one another
up to the code, and their decoders back down:

    x - 1000 - x;  h1 - 500 - h1;  h2 - 30 - h2    becomes    x - 1000 - 500 - 30 - 500 - 1000 - x

which then is trained as a whole (Bengio et al. 2007, "Greedy Layer-Wise Training of Deep Networks";
Hinton and Salakhutdinov 2006, with autoencoders in place of their restricted Boltzmann machines).
With a corruption in each stage it is a stacked denoising autoencoder (Vincent et al. 2010).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax import optimizer
from aejax.config import Config, Pretraining, steps_of
from aejax.errors import InputError
from aejax.kinds import part
from aejax.models import Autoencoder, Batch, corruption
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.optimizer import Adam


class Stages(Pretraining):
    """What is trained before a run, in stages. Required: `stages` and `unrolled`.

    Attributes:
        duration: of each stage.
    """

    duration: str

    def check(self, config: Config) -> None:
        """Raises InputError where it does not suit a run."""
        steps_of("pretrain.duration", self.duration, config.batch_size, config.batch_size)

    def stages(self, config: Config) -> list[Config]:
        """The settings of each stage's own run; from the second on its rows are codes."""
        raise NotImplementedError

    def unrolled(
        self, config: Config, shape: tuple[int, ...], modules: Sequence[Any]
    ) -> nnx.Module:
        """The run's module with what the stages' modules have learned; others are abstract.

        Args:
            config: the run's settings.
            shape: of a prepared row.
            modules: the trained module of each stage.
        """
        raise NotImplementedError

    def initial_params(self, run_setup: Any, workdir: str, options: dict[str, Any]) -> Any:
        """Trains the stages, or goes on with them; see `aejax.pretrain.run.train_stages`."""
        from aejax.pretrain.run import train_stages

        return train_stages(run_setup, workdir, options)


@dataclasses.dataclass
class Greedy(Stages):
    """One stage for each layer of the run's coder, the first one nearest to the data.

    Attributes:
        duration: of each stage.
        optimizer: of each stage: adam | adamw | adadelta | sgd, with its own settings.
        corruption: what is done to each stage's input in training.
        tied: each stage's decoder has its encoder's weights; the deep model's own go apart after.
    """

    duration: str = "10 epochs"
    optimizer: Any = part(optimizer.KINDS, Adam)
    corruption: Any = part(corruption.KINDS, lambda: None)
    tied: bool = False

    def check(self, config: Config) -> None:
        super().check(config)
        model = config.model
        if config.init_from:
            raise InputError(
                "config.pretrain: greedy gives the first parameters;"
                f" config.init_from={config.init_from} does too"
            )
        dense = isinstance(model, Autoencoder) and isinstance(model.coder, Dense)
        if not dense or not model.coder.hidden:
            raise InputError(
                "config.pretrain: greedy needs an autoencoder with model.coder=dense and hidden"
                " layers (coder.hidden)"
            )

    def stages(self, config: Config) -> list[Config]:
        coder = config.model.coder
        count = len(coder.hidden) + 1
        return [self._stage(config, k, last=k == count - 1) for k in range(count)]

    def _stage(self, config: Config, k: int, last: bool) -> Config:
        deep, coder = config.model, config.model.coder
        hidden, data = coder.activation, config.data
        if k:
            # Codes are learned as they are: their maximum, where there is one, is 1.
            prepare = type(data.prepare)(scale=in_interval(hidden))
            data = dataclasses.replace(data, prepare=prepare)
        model = Autoencoder(
            coder=Dense(bias=coder.bias, tied=self.tied or coder.tied),
            latent_dim=(*coder.hidden, deep.latent_dim)[k],
            bottleneck=deep.bottleneck if last else Plain(hidden),
            likelihood=_likelihood(hidden) if k else deep.likelihood,
            corruption=self.corruption,
        )
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
        row: Any = jax.ShapeDtypeStruct((1, *shape), np.float32)
        deep = nnx.eval_shape(lambda: config.model.init(nnx.Rngs(0), Batch(row)))
        layers = list(zip(deep.encoder.layers, reversed(deep.decoder.layers), strict=True))
        for (into, out), module in zip(layers, modules, strict=True):
            (below,), (above,) = module.encoder.layers, module.decoder.layers
            into.weight.set_value(np.asarray(below.weight[...]))
            out.kernel.set_value(np.asarray(above.kernel[...]))
            if config.model.coder.bias:
                into.bias.set_value(np.asarray(below.bias[...]))
                out.bias.set_value(np.asarray(above.bias[...]))
        return deep


def in_interval(activation: str) -> bool:
    """Whether what this activation gives lies in [0, 1]."""
    return activation == "sigmoid"


def _likelihood(activation: str) -> Any:
    """Of codes: its mean must be what the deep decoder's layer gives, activation(linear)."""
    return Bernoulli() if in_interval(activation) else Gaussian(activation=activation)

"""A model's layers for greedy stages, the models that train them, and transfer of parameters.

autoencoder    x -> W, b -> activation -> V, c -> x, of one layer each way (Bengio et al. 2007)
rbm            a restricted Boltzmann machine; its W is both W and V' (Hinton et al. 2006)
"""

import dataclasses
from typing import Any

import numpy as np
from flax import nnx

from aejax.models import RBM, Autoencoder, Classifier, DeepBelief
from aejax.models.autoencoder import AutoencoderModule
from aejax.models.bottlenecks import Plain
from aejax.models.classifier import ClassifierModule
from aejax.models.coders import Convolutional, ConvolutionalStage, Dense
from aejax.models.deep_belief import DeepBeliefModule
from aejax.models.likelihood import Bernoulli, Gaussian
from aejax.models.rbm import RBMModule

# Non-decreasing activations, which commute with max pooling.
_RISING = ("linear", "relu", "sigmoid", "tanh", "softplus")
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a model.

    Attributes:
        size: its units, or the channels of a convolution.
        code: the bottleneck that applies the layer's activation.
        bias: whether it has biases.
        tied: whether its mirror layer in the decoder shares its weights.
        kernel: side of a convolution's kernel; 0 where it is fully connected.
    """

    size: int
    code: Any
    bias: bool = True
    tied: bool = False
    kernel: int = 0

    @property
    def activation(self) -> str:
        """The units' activation; "" if their bottleneck has none."""
        return self.code.activation if isinstance(self.code, Plain) else ""

    @property
    def likelihood(self) -> Any:
        """The likelihood of its code, with the deep decoder layer's output as its mean."""
        sigmoid = self.activation == "sigmoid"
        return Bernoulli() if sigmoid else Gaussian(activation=self.activation)


def layers(model: Any) -> list[Layer]:
    """The layers of a model from the data up; [] for models that stages cannot train."""
    if isinstance(model, DeepBelief):
        return [Layer(size, Plain("sigmoid")) for size in (*model.hidden, model.latent_dim)]
    if not isinstance(model, Autoencoder | Classifier):
        return []
    coder = model.coder
    if not isinstance(coder, Dense | Convolutional):
        return []
    hidden = Plain(coder.activation)
    code = model.bottleneck if isinstance(model, Autoencoder) else hidden
    tied, convolutions = False, []
    if isinstance(coder, Dense):
        tied = coder.tied
    else:
        for channels in coder.channels:
            convolutions.append(Layer(channels, hidden, coder.bias, kernel=coder.kernel))
    connected = [*((size, hidden) for size in coder.hidden), (model.latent_dim, code)]
    return [*convolutions, *(Layer(size, each, coder.bias, tied) for size, each in connected)]


def autoencoder(
    layer: Layer, likelihood: Any, corruption: Any, penalty: Any, tied: bool
) -> Autoencoder:
    """The autoencoder that trains a layer.

    Args:
        layer: of the deep model.
        likelihood: of the layer's input.
        corruption, penalty: of the stage.
        tied: whether its decoder shares the encoder's weight, also if the deep model's does not.

    Raises:
        ValueError: a convolution with an activation that is not non-decreasing.
    """
    if not layer.kernel:
        coder: Any = Dense(bias=layer.bias, tied=tied or layer.tied)
    elif layer.activation not in _RISING:
        raise ValueError(
            f"coder.activation={layer.activation}: of convolutions that stages train must be one of"
            f" {', '.join(_RISING)}"
        )
    else:
        coder = ConvolutionalStage(layer.kernel, layer.bias)
    return Autoencoder(coder, layer.size, layer.code, likelihood, corruption, penalty)


def machine(layer: Layer, likelihood: Any, k: int, persistent: bool) -> RBM:
    """The restricted Boltzmann machine that trains a layer.

    Args:
        layer: of the deep model, with sigmoid units, or linear ones (a code).
        likelihood: of the layer's input.
        k, persistent: of its chains.

    Raises:
        ValueError: a machine cannot train such a layer.
    """
    units = {"sigmoid": "binary", "linear": "gaussian"}
    if layer.kernel or not layer.bias or layer.activation not in units:
        what = "a convolution" if layer.kernel else f"activation={layer.activation or 'none'}"
        what += "" if layer.bias else ", bias=False"
        raise ValueError(
            f"by=rbm: a layer of {layer.size} has {what}; must be fully connected with biases, of"
            " sigmoid units (model.coder.activation=sigmoid), or of linear ones as the code"
        )
    binary = isinstance(likelihood, Bernoulli)
    linear = isinstance(likelihood, Gaussian) and likelihood.activation == "linear"
    if not binary and not (linear and likelihood.outputs() == 1):
        raise ValueError(
            f"by=rbm: what the layer of {layer.size} reads has {likelihood}; must be sigmoid units,"
            " or data with likelihood=bernoulli, or gaussian with activation=linear and"
            " variance=fixed"
        )
    visible = "binary" if binary else "gaussian"
    return RBM(layer.size, visible, units[layer.activation], k=k, persistent=persistent)


def in_interval(model: Autoencoder | RBM) -> bool:
    """Whether the code of a stage's model lies in [0, 1]."""
    if isinstance(model, RBM):
        return model.hidden == "binary"
    return isinstance(model.bottleneck, Plain) and model.bottleneck.activation == "sigmoid"


def learned(module: Any) -> tuple[Arrays, ...]:
    """The arrays of a stage's layer up, and of its layer down, by name.

    Args:
        module: trained, of `autoencoder` or `machine`.
    """
    if isinstance(module, RBMModule):
        weight = np.asarray(module.weight[...]).T
        up = {"weight": weight, "bias": np.asarray(module.hidden_bias[...])}
        return up, {"kernel": weight, "bias": np.asarray(module.visible_bias[...])}
    dense = isinstance(module.settings.coder, Dense)
    halves = (module.encoder, module.decoder)
    up, down = (_variables(half.layers[0] if dense else half.stage) for half in halves)
    return tuple({name: np.asarray(each[...]) for name, each in one.items()} for one in (up, down))


def _variables(layer: nnx.Module) -> dict[str, nnx.Param]:
    return {name: each for name, each in vars(layer).items() if isinstance(each, nnx.Param)}


def insert(deep: Any, modules: list[Any]) -> None:
    """Puts the stages' parameters into a deep model's first layers; other layers stay.

    Args:
        deep: module of a model with `layers`; abstract, or with arrays.
        modules: the trained module of each stage.
    """
    for place, module in zip(_places(deep), modules, strict=False):
        own = {name: np.asarray(each[...]) for name, each in _variables(module).items()}
        # A deep belief network's last layer is a machine itself.
        arrays = (own, {}) if isinstance(place[0], RBMModule) else learned(module)
        for layer, values in zip(place, arrays, strict=True):
            if layer is not None:
                for name, variable in _variables(layer).items():
                    variable.set_value(values[name])


def _places(deep: Any) -> list[tuple[Any, Any]]:
    """The layers of a deep module from the data up, each with the one that mirrors it or None."""
    if isinstance(deep, DeepBeliefModule):
        return [*zip(deep.up, deep.down, strict=True), (deep.top, None)]
    assert isinstance(deep, AutoencoderModule | ClassifierModule)
    convolutional = isinstance(deep.settings.coder, Convolutional)
    ups = [*(deep.encoder.stages if convolutional else ()), *deep.encoder.layers]
    if isinstance(deep, ClassifierModule):
        return [(up, None) for up in ups]
    downs = [*deep.decoder.layers, *(deep.decoder.stages if convolutional else ())]
    return list(zip(ups, reversed(downs), strict=True))

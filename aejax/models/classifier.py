"""A classifier: an encoder with a supervised head, to measure what pre-training is worth.

    x -> encoder -> activation -> linear -> softmax over classes

The loss is -log p(label given x). The encoder's parameters have the same names as in an autoencoder
with the same coder, so that they can be taken from a trained one (`config.init_from`) or from
greedy stages (`config.pretrain`; Hinton et al. 2006, Bengio et al. 2007, Erhan et al. 2010).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.errors import check_least
from aejax.kinds import part
from aejax.models import coders
from aejax.models.autoencoder import Autoencoder
from aejax.models.batch import Batch, Context, row_mean
from aejax.models.coders import Dense
from aejax.models.interfaces import Trainable, Update
from aejax.nn import dropout
from aejax.nn.activation import initializer


@dataclasses.dataclass
class Classifier(Trainable):
    """Settings of a classifier.

    Attributes:
        coder: of which the encoder is used; its activation is that of the code too.
        latent_dim: units of the code, the layer below the classes.
        classes: how many labels there are, 0 to classes - 1.
        dropout: share of the code's units that are put to 0 in training (those of a dense coder's
            hidden layers: coder.dropout).
        input_dropout: share of the input's elements; 0 where they are symbols.
    """

    coder: Any = part(coders.KINDS, Dense)
    latent_dim: int = 256
    classes: int = 10
    dropout: float = 0.0
    input_dropout: float = 0.0
    shares = ("error",)

    def __post_init__(self):
        check_least("latent_dim", self.latent_dim, 1)
        check_least("classes", self.classes, 2)
        dropout.check("dropout", self.dropout)
        dropout.check("input_dropout", self.input_dropout)

    def check(self, interval: bool) -> None:
        """Raises ValueError where the coder does not suit it."""
        if self.symbols and self.input_dropout:
            raise ValueError(
                f"input_dropout={self.input_dropout}: must be 0 with coder.symbols={self.symbols}"
            )
        try:
            self.coder.check(self)
        except ValueError as error:
            raise ValueError(f"coder.{error}") from None

    def check_platform(self, platform: str, compute: str, tensor: int) -> None:
        self.coder.check_platform(platform, compute, tensor)

    @property
    def symbols(self) -> int:  # pyright: ignore - of its coder
        """How many kinds of symbols its rows are made of; 0 where they are numbers."""
        return self.coder.symbols

    @property
    def sharding_rules(self) -> tuple[str, ...]:  # pyright: ignore - of its coder
        """The coder's rules for the sharding of parameters (as `config.mesh.rules`)."""
        return self.coder.sharding_rules

    @property
    def gradient_by_device(self) -> bool:  # pyright: ignore - of its coder
        """Whether each device computes the gradient of its own rows (as the coder says)."""
        return self.coder.gradient_by_device

    def is_transferable(self, name: str, other: Any) -> bool:
        known = isinstance(other, Autoencoder | Classifier)
        return not known or self.coder.is_transferable(name, other.coder)

    def after_update(self, update: Update) -> Update:
        return self.coder.after_update(update)

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "ClassifierModule":
        """Builds the module for batches of these shapes; values are not read.

        Raises:
            ValueError: rows come without labels.
        """
        if batch.label is None:
            raise ValueError("classifier needs a label with each row; these have none")
        return ClassifierModule(self, batch.x.shape[1:], rngs)


class ClassifierModule(nnx.Module):
    """The classifier, built from its settings.

    Attributes:
        encoder: the coder's encoder.
        head: a linear layer from the code to one logit for each class.
    """

    def __init__(self, settings: Classifier, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.settings = nnx.static(settings)
        self.encoder = settings.coder.encoder(shape, settings.latent_dim, rngs)
        code = jax.eval_shape(lambda: self.encode(jnp.zeros((1, *shape))))
        initial = initializer("linear")
        self.head = nnx.Linear(code.size, settings.classes, kernel_init=initial, rngs=rngs)

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> the code [rows, *code]."""
        return self._code(x, mask, None)

    def classify(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> p(label given x) [rows, classes]."""
        return jnp.exp(self.log_prob(x, mask))

    def log_prob(
        self, x: jax.Array, mask: jax.Array | None = None, context: Context | None = None
    ) -> jax.Array:
        """x [rows, *shape] -> log p(label given x) [rows, classes], nats."""
        code = self._code(x, mask, context)
        return jax.nn.log_softmax(self.head(code.reshape(len(code), -1)).astype(x.dtype))

    def loss(self, batch: Batch, context: Context | None = None):
        """-log p(label given x) in nats a row, and its named terms.

        Args:
            batch: prepared rows with labels.
            context: of the training step; None for deterministic evaluation.

        Returns:
            A scalar and {"error": share of rows whose likeliest class is not their label}. In
            training the error is measured before the update: for rows that are seen only once,
            this is the online error.
        """
        label = batch.label
        assert label is not None
        log_p = self.log_prob(batch.x, batch.mask, context)
        nll = -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
        wrong = (jnp.argmax(log_p, axis=1) != label).astype(jnp.float32)
        return row_mean(nll, batch.mask), {"error": row_mean(wrong, batch.mask)}

    def _code(self, x: jax.Array, mask: jax.Array | None, context: Context | None) -> jax.Array:
        settings = self.settings
        x = _dropped(x, settings.input_dropout, context, "input dropout")
        code = settings.coder.as_hidden(self.encoder(x, None, mask, context))
        return _dropped(code, settings.dropout, context, "dropout")


def _dropped(x: jax.Array, rate: float, context: Context | None, part: str) -> jax.Array:
    if not rate or context is None or not context.training:
        return x
    return dropout.dropout(x, rate, context.draw(part))

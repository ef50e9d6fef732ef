"""Terms of a loss that a model from outside reports: numbers of any type, by names of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.autoencoder import AutoencoderModule
from aejax.training.setup import setup
from tests.training.runs import small, terms


@dataclasses.dataclass
class Told(Autoencoder):
    """An autoencoder whose loss has the terms that TERMS has under this name."""

    own: str = "any"

    def init(self, rngs, batch):
        return ToldModule(self, batch.x.shape[1:], rngs)


class ToldModule(AutoencoderModule):
    def loss(self, batch, context=None):
        total, terms = super().loss(batch, context)
        return total, {**terms, **TERMS[self.settings.own](batch)}


TERMS = {
    "any": lambda batch: {"any": jnp.any(batch.x >= 0), "rows": len(batch.x)},
    "each": lambda batch: {"each": batch.x.sum(1)},
    "loss": lambda batch: {"loss": 1.0},
}


def test_a_term_that_is_no_number_counts_as_one_also_with_micro_batches():
    config = small(model=Told(latent_dim=8))
    for count in (1, 2):
        config.micro_batches = count
        found = terms(config, 1)[0][0]
        assert found["any"] == 1 and found["rows"] == 64 / count


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("each", r"the term each of its loss: has shape \(64, 8, 1\)"),
        ("loss", "the term loss of its loss: its name is the loss's own"),
    ],
)
def test_a_term_that_cannot_be_one_is_refused(own, said):
    with pytest.raises(InputError, match=said):
        setup(small(model=Told(latent_dim=8, own=own)), devices=jax.devices()[:1])

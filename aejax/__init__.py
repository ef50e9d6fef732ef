"""aejax trains autoencoders with JAX, from a laptop's CPU to a GPU cluster.

    import aejax
    config = aejax.Config(model=aejax.Autoencoder(latent_dim=16), duration="20 epochs")
    outcome = aejax.Trainer(config, "runs/mine", train=x_train, test=x_test).fit()
    model = aejax.load("runs/mine")
    codes = model.encode(x_test)

Names are imported when they are used: a program that only prints its help starts no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aejax.config import Config
    from aejax.errors import InputError
    from aejax.evaluation.checkpoints import evaluate
    from aejax.exporting.run import export
    from aejax.models import Autoencoder
    from aejax.runs.loading import Model, load
    from aejax.sweeps.run import sweep
    from aejax.training.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "Config",
    "InputError",
    "Model",
    "Trainer",
    "evaluate",
    "export",
    "load",
    "sweep",
]

_WHERE = {
    "Autoencoder": "aejax.models",
    "Config": "aejax.config",
    "InputError": "aejax.errors",
    "Model": "aejax.runs.loading",
    "Trainer": "aejax.training.trainer",
    "evaluate": "aejax.evaluation.checkpoints",
    "export": "aejax.exporting.run",
    "load": "aejax.runs.loading",
    "sweep": "aejax.sweeps.run",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'aejax' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)

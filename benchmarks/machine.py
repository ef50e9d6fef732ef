"""What every result says of the machine it was measured on."""

import os
from typing import Any

import jax


def machine() -> dict[str, Any]:
    """Backend and device, cores, and the version of JAX."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }

"""safetensors: parameters by name, with metadata to rebuild the model and its preparation."""

import dataclasses
import json

import jax
import numpy as np
from flax import nnx

from aejax import kinds
from aejax.exporting.functions import RowFunctions
from aejax.runs.arrays import flatten

FILE = "model.safetensors"
_LOADING = """\
`model.safetensors` holds parameters by name (`encoder/layers/0/weight`); its metadata are the
settings, the rows' shape and type, the statistics of the preparation and the threshold, as JSON
(`pip install safetensors`):

```python
import json, safetensors
with safetensors.safe_open("model.safetensors", "numpy") as file:
    parameters = {name: file.get_tensor(name) for name in file.keys()}
    about = {name: json.loads(text) for name, text in file.metadata().items()}
```
"""


def loading(functions: RowFunctions) -> str:
    """Markdown that says how to read the file without aejax."""
    return _LOADING


def build(functions: RowFunctions) -> dict[str, bytes]:
    """The file: parameters in their own types, and metadata."""
    from safetensors.numpy import save

    model = functions.model
    state = nnx.to_pure_dict(nnx.state(model.module))
    arrays = flatten(jax.device_get(state))
    metadata = {
        "config": kinds.to_dict(model.run.config),
        "rows": dataclasses.asdict(model.run.spec),
        "statistics": model.run.statistics,
        "step": model.step,
        "averaged": model.averaged,
        "threshold": functions.threshold,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {FILE: save(contiguous, {name: json.dumps(each) for name, each in metadata.items()})}

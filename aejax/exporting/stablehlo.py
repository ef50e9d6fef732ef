"""StableHLO: functions that JAX, and any other reader of StableHLO, runs without aejax.

`model.stablehlo` is a zip file with one entry for each function, serialised by `jax.export` for any
number of rows and for CPU, CUDA and TPU, and `signature.json`, which describes them. JAX guarantees
to read such a file for at least six months.
"""

import io
import json
import zipfile

import jax
from jax import export

from aejax.exporting.functions import Functions

FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
LOADING = """\
`model.stablehlo` is a zip file; each entry is a function for any number of rows, on CPU, CUDA and
TPU (`pip install jax flatbuffers`):

```python
import zipfile, jax.export
with zipfile.ZipFile("model.stablehlo") as file:
    names = "encode", "decode", "reconstruct", "score"
    encode, decode, reconstruct, score = (jax.export.deserialize(file.read(n)).call for n in names)
```
"""


def build(functions: Functions) -> dict[str, bytes]:
    """The zip file."""
    (rows,) = export.symbolic_shape("rows")
    raw, codes = functions.rows(rows), functions.codes(rows)
    given = {
        "encode": (functions.encode, raw),
        "decode": (functions.decode, codes),
        "reconstruct": (functions.reconstruct, raw),
        "score": (functions.score, raw),
    }
    out, signature = io.BytesIO(), {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, (function, taken) in given.items():
            exported = export.export(jax.jit(function), platforms=PLATFORMS)(taken)
            signature[name] = {
                "takes": [str(each) for each in exported.in_avals],
                "gives": [str(each) for each in exported.out_avals],
            }
            file.writestr(zipfile.ZipInfo(name), bytes(exported.serialize()))
        file.writestr(zipfile.ZipInfo("signature.json"), json.dumps(signature, indent=1) + "\n")
    return {FILE: out.getvalue()}

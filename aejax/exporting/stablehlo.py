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

from aejax.exporting.functions import RowFunctions

FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def loading(functions: RowFunctions) -> str:
    """Markdown that says how to read the file without aejax."""
    (rows,) = export.symbolic_shape("rows")
    entries = functions.entries(rows)
    names = list(entries)
    signatures = [
        f"| `{name}` | {' | '.join(entry.signature())} |" for name, entry in entries.items()
    ]
    table = "\n".join(["| function | takes | gives |", "|---|---|---|", *signatures])
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"""\
`{FILE}` is a zip file; each entry is a function for any number of rows, on CPU, CUDA and
TPU (`pip install jax flatbuffers`):

```python
import zipfile, jax.export
with zipfile.ZipFile("{FILE}") as file:
    names = {quoted}
    {", ".join(names)} = (jax.export.deserialize(file.read(n)).call for n in names)
```

{table}

A function with two results gives them as a pair.
"""


def build(functions: RowFunctions) -> dict[str, bytes]:
    """The zip file."""
    (rows,) = export.symbolic_shape("rows")
    out, signature = io.BytesIO(), {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, entry in functions.entries(rows).items():
            exported = export.export(jax.jit(entry.function), platforms=PLATFORMS)(entry.taken)
            signature[name] = {
                "takes": [str(each) for each in exported.in_avals],
                "gives": [str(each) for each in exported.out_avals],
            }
            file.writestr(zipfile.ZipInfo(name), bytes(exported.serialize()))
        file.writestr(zipfile.ZipInfo("signature.json"), json.dumps(signature, indent=1) + "\n")
    return {FILE: out.getvalue()}

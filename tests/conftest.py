"""Tests run on 8 simulated CPU devices; real data come from AEJAX_DATA, where it is set."""

import os
from pathlib import Path

import jax
import pytest

# Tests compile much and compute little. With less polish of the machine code (the program before it
# is the same) a preset on any mesh takes .7 of the time, the tests of evaluation .93. Processes
# that tests start inherit it; XLA_FLAGS=--xla_backend_optimization_level=3 tests what users run.
_LEVEL = "--xla_backend_optimization_level"
if _LEVEL not in (flags := os.environ.get("XLA_FLAGS", "")):
    os.environ["XLA_FLAGS"] = f"{flags} {_LEVEL}=1".strip()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")


@pytest.fixture(scope="session", autouse=True)
def kept_programs(tmp_path_factory):
    """Compiled programs are kept over a session: most tests train the same few models again."""
    kept = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, in one of the session's.
    kept = kept.parent if "PYTEST_XDIST_WORKER" in os.environ else kept
    jax.config.update("jax_compilation_cache_dir", str(kept / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; skips where there is none."""
    folder = os.environ.get("AEJAX_DATA")
    if not folder:
        pytest.skip("AEJAX_DATA is not set: no real data here")
    return Path(folder)

"""Tests run on 8 simulated CPU devices; real data come from AEJAX_DATA, where it is set."""

import ctypes
import gc
import os
import resource
from pathlib import Path

import jax
import pytest

# Tests compile much and compute little. Compilation takes 0.4 of the time without optimisation of
# the machine code, with one module instead of several, and with XLA's older code generator (the HLO
# is the same). Processes that tests start inherit these flags;
# XLA_FLAGS=--xla_backend_optimization_level=3 tests what users run.
_LEVEL = "--xla_backend_optimization_level"
_QUICK = f"{_LEVEL}=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if _LEVEL not in (flags := os.environ.get("XLA_FLAGS", "")):
    os.environ["XLA_FLAGS"] = f"{flags} {_QUICK}".strip()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")

_LIBC = ctypes.CDLL(None)
_MIB_A_PROCESS = 2560  # what a process of the tests may take at most
_MIB_OF_PROGRAMS = 900  # above it, what was compiled is forgotten after a module
_PEAKS = pytest.StashKey[dict[str, int]]()


@pytest.fixture(scope="session", autouse=True)
def kept_programs(tmp_path_factory):
    """Compiled programs are kept over a session: most tests train the same few models again.

    Processes that tests start keep theirs in the same folder, never in the user's own.
    """
    kept = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, in one of the session's.
    kept = kept.parent if "PYTEST_XDIST_WORKER" in os.environ else kept
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(kept / "programs")
    jax.config.update("jax_compilation_cache_dir", str(kept / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """What modules have compiled goes once it is much: memory would grow to gigabytes."""
    yield
    if _resident_mib() < _MIB_OF_PROGRAMS:
        return
    jax.clear_caches()
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):  # glibc keeps what was freed
        _LIBC.malloc_trim(0)


def _resident_mib() -> int:
    """Memory that this process has now; above the limit where that cannot be told."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 2**20
    except OSError:
        return _MIB_OF_PROGRAMS


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; skips where there is none."""
    folder = os.environ.get("AEJAX_DATA")
    if not folder:
        pytest.skip("AEJAX_DATA is not set: no real data here")
    return Path(folder)


# The peak memory of each process that ran tests, and a failure where it is too much.


def pytest_configure(config):
    config.stash[_PEAKS] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    if found := getattr(node, "workeroutput", {}).get("peak_mib"):
        node.config.stash[_PEAKS][node.gateway.id] = found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_mib"] = mib
        return
    peaks = session.config.stash[_PEAKS]
    if not peaks:  # without workers
        peaks["main"] = mib
    if max(peaks.values()) > _MIB_A_PROCESS and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    peaks = config.stash[_PEAKS]
    told = ", ".join(f"{name} {mib}" for name, mib in sorted(peaks.items()))
    terminalreporter.write_line(f"peak memory in MiB (at most {_MIB_A_PROCESS}): {told}")

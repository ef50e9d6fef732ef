"""Programs of `launch`, in processes that do not import JAX again.

Each is forked from a process that has imported JAX and made nothing of it. That spares most of what
a program that refuses its flags takes. Variables that JAX reads when it is imported (`JAX_...`) are
those of the tests.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["launch.flags"])


def run(
    program: str, *words: str, where: Path = ROOT, timeout: float = 240, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`python -m launch.PROGRAM WORDS` in a folder, with these variables beside the tests' own."""
    # With this one a program does not begin anew to get huge pages.
    small_pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **small_pages, **variables}
    files = [os.memfd_create(name) for name in ("stdout", "stderr")]
    with open(files[0]) as out, open(files[1]) as err:
        paths = [f"/proc/{os.getpid()}/fd/{file}" for file in files]
        given = program, words, str(where), environment, *paths
        process = _SERVER.Process(target=_main, args=given)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"launch.{program} {' '.join(words)}: still runs after {timeout} s")
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(words, process.exitcode, out.read(), err.read())


def _main(program: str, words: list[str], where: str, environment: dict[str, str], *paths: str):
    for number, path in enumerate(paths, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environment)
    jax.config.update("jax_platforms", "cpu")
    sys.argv = [program, *words]
    try:
        runpy.run_module(f"launch.{program}", run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()

"""The command `aejax`: `aejax train ...` is `python -m launch.train ...`.

Folders called launch or configs where it is started do not get in its way.
"""

import gc
import runpy
import sys

PROGRAMS = {
    "train": "train an autoencoder; started again, it goes on",
    "evaluate": "numbers, pictures and a report from a run's folder",
    "encode": "a run's codes and reconstructions of your rows",
    "associate": "tests of the associations that an encoder has learned (iEAT)",
    "compress": "rows to a compressed file, and back",
    "sweep": "a run for each combination of settings, compared",
    "export": "a checkpoint as files for JAX, ONNX and others, with a model card",
    "search": "search for a transformer's layout",
    "prepare": "write a source as a TFDS data set",
    "submit": "hand one of these to Slurm, Kubernetes or SkyPilot, as a job that goes on",
}


def main() -> None:
    """Runs the program that the first word names with the words after it."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print("usage: aejax PROGRAM --help\n\nprograms:")
        print("\n".join(f"  {name:<10} {line}" for name, line in PROGRAMS.items()))
        return
    if name not in PROGRAMS:
        print(f"error: aejax {name}: must be one of {', '.join(PROGRAMS)}", file=sys.stderr)
        sys.exit(2)
    gc.disable()  # `launch/__init__.py` says why; the program turns it on again
    sys.argv = [sys.argv[0], *words]
    runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""Every example runs as a newcomer would run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    ("name", "said"),
    [("own_arrays", "done at step"), ("own_part", "codes (297, 6)")],
)
def test_a_script_runs_from_another_folder(tmp_path, name, said):
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert said in ended.stdout, ended.stdout


def test_deformed_digits_are_drawn(tmp_path):
    words = [sys.executable, str(EXAMPLES / "deformed_digits.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert ended.stdout == "deformed.png: 182 x 110 pixels\n", ended.stderr
    with Image.open(tmp_path / "deformed.png") as image:
        pixels = np.asarray(image)[::2, ::2]
    lines = [pixels[1 + 9 * i : 9 + 9 * i] for i in range(6)]
    assert len({line.tobytes() for line in lines}) == 6  # no epoch's images are another's


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "two_numbers.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [one for one in outputs if one["output_type"] == "error"]
    assert sum("image/png" in one.get("data", {}) for one in outputs) >= 3

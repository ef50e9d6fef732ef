"""Evaluating checkpoints of a folder: what is written, kept, followed, skipped and refused."""

import base64
import dataclasses
import html
import html.parser
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import aejax
from aejax.cluster import Stopped
from aejax.data.sources import open_source
from aejax.errors import InputError
from aejax.evaluation import Task, checkpoints
from aejax.evaluation.checkpoints import check_request
from aejax.evaluation.result import Number, Result, shown
from aejax.evaluation.rows import Chosen
from aejax.runs import manifests


def ignore(line: str) -> None:
    pass


def records(folder) -> list[dict]:
    return json.loads((folder / "evaluation.json").read_text())["evaluations"]


def numbers(folder, step="latest", **options) -> dict:
    request = check_request(str(folder), ("reconstruction",), **options)
    return checkpoints.evaluate_request(request, step, ignore)["tasks"]["reconstruction"]


def test_one_checkpoint_and_all_that_is_written(folder):
    lines = []
    record = checkpoints.evaluate_request(check_request(str(folder)), say=lines.append)
    assert records(folder) == [record]
    assert (record["step"], record["parameters"], record["rows"]) == (20, "ema", 360)
    assert (record["source"], record["split"]) == ("digits", "test")
    assert tuple(record["tasks"]) == checkpoints.DEFAULT
    # The trainer computed the same two numbers its own way.
    metrics = manifests.read(str(folder), 20)["progress"]["metrics"]
    found = record["tasks"]["reconstruction"]
    assert found["mse"] == pytest.approx(metrics["mse"], rel=1e-5)
    assert 64 * found["bce"] == pytest.approx(metrics["nll"], rel=1e-5)
    with np.load(folder / "codes.npz", allow_pickle=False) as codes:
        test = open_source("digits", "test")[:]
        model = aejax.load(str(folder))
        np.testing.assert_allclose(codes["z"], model.encode(test.x), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(codes["label"], test.label)
    pictures = sorted(path.name for path in (folder / "figures").glob("*.png"))
    assert {"latent_pca.png", "reconstruction.png"} <= set(pictures)
    (line,) = lines
    assert line.startswith("step 20 (ema): bce ") and f"mse {found['mse']:.5g}" in line
    assert not list(folder.glob("**/*.tmp"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_null_in_json(value):
    number = Number(value, "dB", "")
    assert json.dumps(number.value) == "null" and shown(number.value) == "not finite"


def test_results_are_kept_by_step_and_rows(folder):
    both = check_request(str(folder))
    checkpoints.evaluate_request(both, 10, ignore)
    checkpoints.evaluate_request(check_request(str(folder), ("latent",)), 20, ignore)
    checkpoints.evaluate_request(check_request(str(folder), ("reconstruction",)), "best", ignore)
    checkpoints.evaluate_request(
        check_request(str(folder), ("latent",), split="test[:7]"), 20, ignore
    )
    found, default = records(folder), set(checkpoints.DEFAULT)
    assert [(one["step"], one["split"]) for one in found] == [
        (10, "test"),
        (20, "test"),
        (20, "test[:7]"),
    ]
    assert [set(one["tasks"]) for one in found] == [default, default, {"latent"}]
    assert found[0]["tasks"] != found[1]["tasks"]
    page = (folder / "report.html").read_text()
    assert "--source=npz:FILE --out=codes.npz" in page  # rows for a run on digits are arrays
    assert "Checkpoints so far" not in page  # the others were evaluated on other rows
    checkpoints.evaluate_request(both, 20, ignore)
    assert "Checkpoints so far" in (folder / "report.html").read_text()
    assert len(records(folder)) == 3


def test_a_step_that_was_trained_anew_keeps_no_old_numbers(folder, monkeypatch):
    manifest = manifests.read
    checkpoints.evaluate_request(check_request(str(folder), ("latent",)), say=ignore)

    def anew(workdir, step):  # the same step, but for the times in its ledger
        data = manifest(workdir, step)
        data["progress"]["ledger"]["lost"] = 1.5
        return data

    monkeypatch.setattr(manifests, "read", anew)
    checkpoints.evaluate_request(check_request(str(folder), ("reconstruction",)), say=ignore)
    (record,) = records(folder)
    assert set(record["tasks"]) == set(record["notes"]) == {"reconstruction"}


class Page(html.parser.HTMLParser):
    """What a browser would read."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_that_needs_nothing(folder, monkeypatch):
    name = "a run & <script>alert('1')</script>"
    os.makedirs(folder.parent / "a run & <script>alert('1')<")
    shutil.move(folder, folder.parent / name)
    monkeypatch.chdir(folder.parent)
    record = checkpoints.evaluate_request(check_request(name), say=ignore)
    text = (folder.parent / name / "report.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    links = [value for key, value in page.attributes if key in ("src", "href", "style", "onload")]
    start = "data:image/png;base64,"
    figures = ("reconstruction", "latent_pca", "latent_activity")
    assert len(links) == len(figures) and all(link.startswith(start) for link in links)
    assert "http" not in text and "url(" not in text and "@import" not in text
    shown = [base64.b64decode(link[len(start) :]) for link in links]
    for figure in figures:
        assert (folder.parent / name / "figures" / f"{figure}.png").read_bytes() in shown
    assert name in page.text and "step 20 of 20" in page.text and "EMA" in page.text
    for task, values in record["tasks"].items():
        assert f"Task: {task}" in page.text
        assert all(number in page.text for number in values)
    command = f"--workdir={name}".replace("'", "'\"'\"'")
    assert (
        f"python -m launch.evaluate '{command}' --step=20 --tasks=reconstruction,latent"
        in page.text
    )
    assert str(folder.parent) not in text  # what was typed, and no path of this machine


def test_other_rows_are_scaled_by_their_own_maximum(folder, tmp_path):
    """Digits go up to 16; the same digits as pictures of bytes must give the same numbers."""
    rows = open_source("digits", "test[:9]")[:].x
    (tmp_path / "pictures").mkdir()
    for i, row in enumerate(rows):
        bytes_ = (row[..., 0].astype(float) * 255 / 16).round().astype(np.uint8)
        Image.fromarray(bytes_).save(tmp_path / "pictures" / f"{i}.png")
    own = numbers(folder, split="test[:9]")
    other = numbers(folder, source=f"images:{tmp_path}/pictures")
    assert other["mse"] == pytest.approx(own["mse"], rel=0.01)
    assert other["bce"] == pytest.approx(own["bce"], rel=0.01)
    assert other["pca_mse"] == pytest.approx(own["pca_mse"], rel=0.05)
    assert records(folder)[-1]["rows"] == 9 and records(folder)[-1]["split"] == "all"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ("reconstuction",)}, ("--tasks=", "did you mean reconstruction?")),
        ({"tasks": ()}, ("--tasks", "reconstruction, latent")),
        ({"split": "tset"}, ("tset", "did you mean test?")),
        ({"source": "npz:big.npz"}, ("(5,)", "(8, 8, 1)")),
        ({"source": "npz:float.npz"}, ("float32", "uint8")),
        ({"source": "npz:not.npz"}, ("--source=npz:not.npz",)),
    ],
)
def test_what_cannot_be_evaluated_is_refused(folder, monkeypatch, options, words):
    monkeypatch.chdir(folder.parent)
    np.savez("big.npz", x=np.zeros((9, 5), np.uint8))
    np.savez("float.npz", x=np.zeros((9, 8, 8, 1), np.float32))
    with pytest.raises(InputError) as caught:
        check_request(str(folder), **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        check_request(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_is_refused_before_anything_is_computed(folder):
    (folder / "evaluation.json").write_text('{"format": 1, "evalu')
    with pytest.raises(InputError, match="evaluation.json: damaged"):
        check_request(str(folder))


@pytest.mark.parametrize("name", ["evaluation.json", "report.html", "codes.npz"])
def test_a_folder_where_a_result_belongs_is_refused_before_anything_is_computed(folder, name):
    (folder / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: is a folder; move it away, the file of this"):
        check_request(str(folder))


def copied(trained, folder, step: int) -> None:
    """Puts a checkpoint of another folder into this one, its manifest last."""
    source, target = trained / "checkpoints", folder / "checkpoints"
    shutil.copytree(source / f"{step:09d}", target / f"{step:09d}")
    shutil.copy(source / f"{step:09d}.json", target)


def removed(folder, step: int) -> None:
    (folder / "checkpoints" / f"{step:09d}.json").unlink()
    shutil.rmtree(folder / "checkpoints" / f"{step:09d}")


def test_following_evaluates_each_checkpoint_once_until_the_run_is_complete(folder, trained):
    removed(folder, 20)
    waits, lines = [], []

    def wait():
        waits.append(1)
        if len(waits) == 2:
            copied(trained, folder, 20)
        assert len(waits) < 5

    request = check_request(str(folder), ("reconstruction",))
    assert checkpoints.follow(request, lines.append, wait) == 2
    assert [line[:8] for line in lines] == ["step 10 ", "step 20 "]
    assert len(waits) == 2
    assert [one["step"] for one in records(folder)] == [10, 20]


def test_following_stops_on_request(folder):
    removed(folder, 20)
    lines: list[str] = []
    request = check_request(str(folder), ("latent",))
    with pytest.raises(Stopped):
        checkpoints.follow(request, lines.append, stop=lambda: bool(lines))
    assert [line[:8] for line in lines] == ["step 10 "]


def test_following_ends_where_a_run_stopped_early(folder, trained, monkeypatch):
    manifest = manifests.read

    def early(workdir, step):
        data = manifest(workdir, step)
        data["progress"] |= {"total": 1000, "stopped_early": step == 20}
        return data

    monkeypatch.setattr(manifests, "read", early)
    removed(folder, 20)
    request = check_request(str(folder), ("latent",))
    assert checkpoints.follow(request, ignore, lambda: copied(trained, folder, 20)) == 2


def test_a_checkpoint_pruned_while_it_is_read_is_skipped(folder, monkeypatch):
    verify, lines = manifests.verify, []

    def pruned(workdir, step):
        found = verify(workdir, step)
        if step == 10:
            removed(folder, 10)
        return found

    monkeypatch.setattr(manifests, "verify", pruned)
    assert checkpoints.follow(check_request(str(folder), ("latent",)), lines.append) == 1
    assert lines[0] == "step 10: skipped; it was pruned while it was read"
    assert [one["step"] for one in records(folder)] == [20]


def test_latest_is_read_again_where_it_was_pruned(folder, monkeypatch):
    load, asked = checkpoints.load, []

    def vanishing(workdir, step, say):
        asked.append(step)
        if step == 20:
            removed(folder, 20)
        return load(workdir, step, say)

    monkeypatch.setattr(checkpoints, "load", vanishing)
    request = check_request(str(folder), ("latent",))
    assert checkpoints.evaluate_request(request, say=ignore)["step"] == 10
    assert asked == [20, 10]


def test_a_damaged_checkpoint_is_named_and_skipped(folder):
    data = next((folder / "checkpoints" / "000000010").glob("**/d/*"))
    data.write_bytes(b"\0" + data.read_bytes()[1:])
    lines = []
    assert checkpoints.follow(check_request(str(folder), ("latent",)), lines.append) == 1
    assert lines[0].startswith("step 10: skipped;") and str(data) in lines[0]
    with pytest.raises(InputError, match="damaged"):
        checkpoints.evaluate_request(check_request(str(folder), ("latent",)), 10, ignore)


def test_rows_that_leave_numbers_that_are_not_finite_are_named(make, monkeypatch):
    x = np.random.RandomState(0).rand(40, 4).astype(np.float32)
    x[0, 0], x[1, 0] = 0, 1
    test = x[:9].copy()
    test[3, 2] = 1e25
    made = make(x_train=x, x_test=test)
    lines, rows = [], Chosen(made.test, "npz:rows.npz", "test")
    request = checkpoints.Request("runs/dense", ("task",), rows, {})
    named = "npz:rows.npz, split test: row 3, element 2: 1e+25 (the training split lies in 0..1);"
    given = Result({"mse": Number(float("nan"), "", "")})
    monkeypatch.setitem(checkpoints.TASKS, "task", Task(lambda model, source: given))
    assert checkpoints._results(request, made.model, lines.append) == {"task": given}
    assert lines == [f"{named} that is why numbers are not finite"]

    def fails(model, source):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setitem(checkpoints.TASKS, "task", Task(fails))
    with pytest.raises(InputError, match=f"^{re.escape(named)} cannot be evaluated"):
        checkpoints._results(request, made.model, lines.append)
    whole = dataclasses.replace(request, rows=Chosen(made.train, "npz:rows.npz", "train"))
    with pytest.raises(np.linalg.LinAlgError):
        checkpoints._results(whole, made.model, lines.append)

"""Tables of sweeps, from records that are typed here."""

import itertools

import numpy as np

from aejax.evaluation import plots
from aejax.sweeps import report


def cell(settings, value, status="done"):
    numbers = {"anomaly": {} if value is None else {"auroc": value, "rows": 7}}
    name = ",".join(map(str, settings.values()))
    main = {"anomaly": ["auroc"]}
    return {
        "name": name,
        "settings": settings,
        "status": status,
        "metrics": {},
        "numbers": numbers,
        "main": main if value is not None else {},
    }


def found(setting, values):
    """Two seeds of two values of a setting, with these numbers."""
    each = [
        cell({setting: which, "seed": seed}, values[i][seed])
        for i, which in enumerate(("3", "5") if setting == "data.keep_labels" else (3, 5))
        for seed in (0, 1)
    ]
    return {"swept": [setting, "seed"], "cells": each}


def test_without_a_number_that_varies_the_last_row_is_the_mean_over_groups():
    head, *rows = report.table(found("data.keep_labels", [[0.9, 0.8], [0.5, 0.7]]))
    assert head == ["keep_labels", "runs", "auroc"]
    assert rows[0] == ["3", "2", f"0.85 ± {np.std([0.9, 0.8], ddof=1):.2g}"]
    assert rows[2] == ["mean", "4", f"0.725 ± {np.std([0.7, 0.75], ddof=1):.2g}"]
    head, *rows = report.table(found("model.latent_dim", [[0.9, 0.8], [0.6, 0.7]]))
    assert len(rows) == 2


def test_a_seed_that_lacks_a_run_has_no_part_in_the_mean():
    one = found("data.keep_labels", [[0.9, 0.8], [0.6, 0.7]])
    one["cells"][3] = cell(one["cells"][3]["settings"], None, "diverged")
    _, *rows = report.table(one)
    assert rows[1] == ["5", "1 of 2", "0.6"] and rows[2] == ["mean", "4", "0.75"]


def test_a_setting_that_changes_with_the_axis_makes_no_curve_of_its_own(monkeypatch):
    one = found("model.latent_dim", [[0.9, 0.8], [0.6, 0.7]])
    for each, size in zip(one["cells"], (64, 64, 32, 32), strict=True):
        each["settings"]["batch_size"] = size
    one["swept"].append("batch_size")
    drawn = []
    monkeypatch.setattr(plots, "curves_png", lambda series, axes: drawn.append(series) or b"")
    report.curves(one)
    ((name, (x, mean, _)),) = drawn[0].items()
    assert name == "auroc" and [*x] == [3, 5] and np.allclose(mean, [0.85, 0.65])
    one["cells"][1]["settings"]["batch_size"] = 16  # now it tells two curves apart
    report.curves(one)
    assert len(drawn[1]) == 3


def test_the_table_of_stages_has_mean_seconds_of_each_group():
    one = found("data.keep_labels", [[0.9, 0.8], [0.5, 0.7]])
    stages = [
        {"stage1": 1.0, "stage2": 10.0, "run": 2.0},
        {"stage1": 2.0, "stage2": 20.0, "run": 3.0},
        {"run": 5.25},
        {},
    ]
    for each, seconds in zip(one["cells"], stages, strict=True):
        each["stages"] = seconds
    assert report.stage_table(one) == [
        ["keep_labels", "runs", "stage1", "stage2", "run", "total"],
        ["3", "2", "1.5", "15", "2.5", "19"],
        ["5", "1", "-", "-", "5.25", "5.25"],
    ]
    assert "Seconds of each stage" in report.text(one)
    for each in one["cells"][:2]:
        each["stages"] = {"run": 1.0}
    assert report.stage_table(one) == [] and "Seconds" not in report.text(one)


def test_curves_are_against_a_setting_that_is_crossed_with_the_others(monkeypatch):
    """Not against one that comes with some kinds of run alone; shares are numbers."""
    arms = [("sigmoid", 0.0), ("relu", 0.0), ("relu", 0.5)]
    cells = [
        cell({"model.coder.activation": a, "model.dropout": d, "data.labels": share, "seed": 0}, v)
        for v, (share, (a, d)) in enumerate(itertools.product(("1%", "100%", "10%"), arms))
    ]
    names = ["model.coder.activation", "model.dropout", "data.labels", "seed"]
    drawn = []
    monkeypatch.setattr(plots, "curves_png", lambda *given: drawn.append(given) or b"")
    report.curves({"swept": names, "cells": cells})
    ((lines, axes),) = drawn
    assert axes == ("labels", "auroc") and len(lines) == 3
    for place, line in enumerate(lines.values()):
        x, mean, _ = line
        assert [*x] == [1, 10, 100] and [*mean] == [place, place + 6, place + 3]


def test_what_is_a_share_of_the_rows_is_shown_in_percent_with_and_without_tasks(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "curves_png", lambda *given: drawn.append(given) or b"")
    for number in range(2):
        one = found("model.latent_dim", [[0.02, 0.03], [0.04, 0.05]])
        for each in one["cells"]:
            value = each["numbers"].pop("anomaly")["auroc"]
            each["shares"] = ["error"]
            if number:  # a task has it in % already
                each |= {"main": {"classify": ["error"]}, "percent": {"classify": ["error"]}}
                each["numbers"]["classify"] = {"error": 100 * value, "wrong": 7}
            else:
                each["metrics"] = {"loss": 0.5, "error": value}
        head, row, _ = report.table(one)
        assert head[-1] == "error in %" and row[-1] == "2.5 ± 0.71"
        assert report.main_line(one["cells"][0]).endswith("error 2 %")
        figure = report.curves(one)[-1]
        assert figure.caption.startswith("error in % against") and figure.name == "sweep_error"
        series, axes = drawn[-1]
        assert axes == ("latent_dim", "error in %") and [*series["error"][1]] == [2.5, 4.5]
    assert [head for head in report.table(found("seed", [[0.1, 0.2]] * 2))[0]][-1] == "auroc"

"""Tables of sweeps, from records that are typed here."""

import numpy as np

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

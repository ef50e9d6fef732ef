"""How often a search finds what is known to be needed.

    python -m benchmarks.planted --task=plant [--seeds=10:20] [--folder=FOLDER]

prints one JSON line. The tasks are `plant` (two slots of six, other ones for each seed), `copy`
(one slot, any), `hop2` (two, any) and `counting` (none). Each seed is a search of the preset
`search_TASK`, whose settings were fixed with other seeds: the supernet and replacement; what was
found is trained again from nothing.

Of each method: how many seeds ended `exact`, with too many blocks of attention (`many`), too few
(`few`), as many in other slots (`elsewhere`), or `collapsed`, when the supernet had not learned the
task. `largest` reads the supernet's largest weights, before elimination. `solved`: of the
layouts that were trained again, how many tell every hidden symbol but one in a hundred. With
--folder the searches stay there, and those that are done are not done again.
"""

import collections
import contextlib
import importlib
import json
import os
import tempfile
from typing import Any

from absl import app, flags

from aejax.nn.layout import ATTENTION
from aejax.search import Search
from aejax.search.run import search

TASKS = {"plant": 2, "copy": 1, "hop2": 2, "counting": 0}

_TASK = flags.DEFINE_enum("task", "plant", list(TASKS), "What is planted.")
_SEEDS = flags.DEFINE_string("seeds", "10:20", "FIRST:END, END not among them.")
_FOLDER = flags.DEFINE_string("folder", "", "Where the searches stay; none by default.")


def settings(task: str, seed: int) -> Search:
    """The search of a task, as its preset has it."""
    preset = "copy" if task == "counting" else task
    made: Search = importlib.import_module(f"configs.search_{preset}").get_config()
    made.run.seed = seed
    if task == "counting":
        made.run.data.source = "planted:counting"
    return made


def verdict(task: str, made: Search, layout: str) -> str:
    """exact, many, few or elsewhere."""
    encoder = layout.partition("|")[0]
    slots = {slot for slot, letter in enumerate(encoder) if letter in ATTENTION}
    if len(slots) != TASKS[task]:
        return "many" if len(slots) > TASKS[task] else "few"
    needed = {slot for slot, letter in enumerate(made.parent().encoder) if letter in "lr"}
    return "exact" if task != "plant" or slots == needed else "elsewhere"


def methods(task: str, made: Search, result: dict[str, Any]) -> dict[str, str]:
    """{method: verdict} of one search."""
    own, replacement = result["supernet"], result["replacement"]["layout"]
    layouts = {"largest": own["largest"], "supernet": own["layout"], "replacement": replacement}
    out = {method: verdict(task, made, layout) for method, layout in layouts.items()}
    return out | (dict.fromkeys(("largest", "supernet"), "collapsed") if own["collapsed"] else {})


def main(argv: list[str]) -> None:
    """Searches, counts and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    first, end = map(int, _SEEDS.value.split(":"))
    task, wrong = _TASK.value, []
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    with contextlib.ExitStack() as stack:
        folder = _FOLDER.value or stack.enter_context(tempfile.TemporaryDirectory())
        for seed in range(first, end):
            made = settings(task, seed)
            result = search(made, os.path.join(folder, f"{task}-{seed}"), quiet=True)
            assert result is not None
            for method, word in methods(task, made, result).items():
                counts[method][word] += 1
            layouts = {result["layouts"][name] for name in ("supernet", "replacement")}
            wrong += [result["again"][one]["wrong"][0] for one in layouts]
    line = {"task": task, "seeds": _SEEDS.value} | counts
    print(json.dumps(line | {"again": len(wrong), "solved": sum(one < 0.01 for one in wrong)}))


if __name__ == "__main__":
    app.run(main)

"""How often a search finds what is known to be needed, beside what it finds without its parts.

    python -m benchmarks.planted --task=plant [--seeds=10:20] [--variants=search,no_cost]

prints one JSON line. The tasks are `plant` (two slots of six, other ones for each seed), `copy`
(one slot, any), `hop2` (two, any) and `counting` (none). Each seed is a search of the preset
`search_TASK`, whose settings were fixed with other seeds:

- `search`: as it is, the supernet and replacement; what was found is trained again from nothing.
- `no_cost`: a supernet in which attention costs nothing.
- `no_warmup`: one whose architecture weights move from the first step.
- `par_literal`: one with PAR's own numbers (Mandava et al. 2021): a quarter of the steps for the
  blocks alone, architecture weights in a fifth of the others with a rate of 0.01, no cost.

Of each method: how many seeds ended `exact`, with too many blocks of attention (`many`), too few
(`few`), as many in other slots (`elsewhere`), or `collapsed`, when the supernet had not learned the
task. `largest` reads the supernet's largest weights, before elimination. `chance` is the share of
exact ones among all layouts with as many blocks of attention, `chance_any` among all. `solved`: of
the layouts that were found and trained again, how many tell every hidden symbol but one in a
hundred.

With --folder the searches stay there, and those that are done are not done again. The results stand
in benchmarks/README.md.
"""

import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import tempfile
from typing import Any

from absl import app, flags

from aejax.nn.layout import ATTENTION
from aejax.search import Search
from aejax.search.run import search

TASKS = {"plant": 2, "copy": 1, "hop2": 2, "counting": 0}
VARIANTS = ("search", "no_cost", "no_warmup", "par_literal")
VERDICTS = ("exact", "many", "few", "elsewhere", "collapsed")

_TASK = flags.DEFINE_enum("task", "plant", list(TASKS), "What is planted.")
_SEEDS = flags.DEFINE_string("seeds", "10:20", "FIRST:END, END not among them.")
_VARIANTS = flags.DEFINE_list("variants", list(VARIANTS), "Which of them.")
_FOLDER = flags.DEFINE_string("folder", "", "Where the searches stay; none by default.")


def settings(task: str, variant: str, seed: int) -> Search:
    """The search of a task, as its preset has it or without a part."""
    preset = "copy" if task == "counting" else task
    made: Search = importlib.import_module(f"configs.search_{preset}").get_config()
    made.run.seed = seed
    if task == "counting":
        made.run.data.source = "planted:counting"
    if variant == "search":
        return made
    own, steps = made.supernet, int(made.supernet.duration.split()[0])
    changes: dict[str, Any] = {
        "no_cost": {"cost_weight": 0.0},
        "no_warmup": {"patient": False, "warmup": 0},
        "par_literal": {
            "cost_weight": 0.0,
            "patient": False,
            "warmup": steps // 4,
            "share": 0.2,
            "rate": 0.01 / made.run.optimizer.learning_rate,
        },
    }[variant]
    own = dataclasses.replace(own, **changes)
    return dataclasses.replace(made, supernet=own, method="supernet", seeds=0)


def needed(task: str, made: Search) -> set[int] | None:
    """The slots that must have attention, where these are known; None where any will do."""
    if task != "plant":
        return None
    return {slot for slot, letter in enumerate(made.parent().encoder) if letter in "lr"}


def verdict(task: str, made: Search, layout: str) -> str:
    """One of VERDICTS, but for collapsed."""
    encoder = layout.partition("|")[0]
    slots = {slot for slot, letter in enumerate(encoder) if letter in ATTENTION}
    if len(slots) != TASKS[task]:
        return "many" if len(slots) > TASKS[task] else "few"
    return "exact" if needed(task, made) in (None, slots) else "elsewhere"


def chance(task: str, made: Search) -> dict[str, float]:
    """The share of exact layouts, of those with as many blocks of attention and of all."""
    space = made.space()
    each = itertools.product(*(range(len(letters)) for _, _, letters in space.searched))
    seen = [verdict(task, made, str(space.layout(list(choices)))) for choices in each]
    exact = seen.count("exact")
    return {
        "chance": round(exact / (exact + seen.count("elsewhere")), 4),
        "chance_any": round(exact / len(seen), 4),
    }


def methods(task: str, made: Search, found: dict[str, Any]) -> dict[str, str]:
    """{method: verdict} of one search."""
    out, own = {}, found["supernet"]
    out["largest"] = "collapsed" if own["collapsed"] else verdict(task, made, own["largest"])
    out["supernet"] = "collapsed" if own["collapsed"] else verdict(task, made, own["layout"])
    if "replacement" in found:
        out["replacement"] = verdict(task, made, found["replacement"]["layout"])
    return out


def main(argv: list[str]) -> None:
    """Searches, counts and prints."""
    del argv
    first, end = map(int, _SEEDS.value.split(":"))
    task, out = _TASK.value, {"task": _TASK.value, "seeds": _SEEDS.value}
    out |= chance(task, settings(task, "search", first))
    with contextlib.ExitStack() as stack:
        folder = _FOLDER.value or stack.enter_context(tempfile.TemporaryDirectory())
        for variant in _VARIANTS.value:
            counts: dict[str, dict[str, int]] = {}
            again, solved = 0, 0
            for seed in range(first, end):
                made = settings(task, variant, seed)
                name = f"{task}-{seed}" if variant == "search" else f"{task}-{variant}-{seed}"
                found = search(made, os.path.join(folder, name), quiet=True)
                assert found is not None
                for method, word in methods(task, made, found).items():
                    own = counts.setdefault(method, dict.fromkeys(VERDICTS, 0))
                    own[word] += 1
                names = ("supernet", "replacement")
                ended = {found["layouts"][name] for name in names if name in found["layouts"]}
                wrong = [found["again"][one]["wrong"][0] for one in ended if "again" in found]
                again, solved = again + len(wrong), solved + sum(one < 0.01 for one in wrong)
            out[variant] = counts | ({"again": again, "solved": solved} if again else {})
    print(json.dumps(out))


if __name__ == "__main__":
    app.run(main)

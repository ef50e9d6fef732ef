"""The script of a job, and what is refused before it waits in a queue."""

import subprocess
import sys

import pytest

from tests.launch import forked

TRAIN = ("train", "--config=dense", "--config.duration=5 epochs", "--workdir=runs/it's mine")


def submit(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return forked.run("submit", *words, **variables)


def script(*words: str) -> list[str]:
    done = submit("--show", *words)
    assert done.returncode == 0, done.stderr
    checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    return done.stdout.splitlines()


def test_a_training_has_a_process_on_each_node_and_all_options():
    words = ("--nodes=2", "--gpus=8", "--cpus=4", "--memory=64G", "--time=1-00:00:00")
    words += ("--partition=gpu", "--account=me", "--option=--qos=low", "--setup=module load cuda")
    lines = script(*words, "--stop_seconds=300", "--", *TRAIN)
    assert lines[0] == "#!/bin/bash"
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert options == {
        "--job-name=aejax-train",
        "--output=aejax-train-%j.out",
        "--open-mode=append",
        "--requeue",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--signal=B:USR1@300",
        "--gpus-per-node=8",
        "--cpus-per-task=4",
        "--mem=64G",
        "--time=1-00:00:00",
        "--partition=gpu",
        "--account=me",
        "--qos=low",
    }
    assert "module load cuda" in lines
    (line,) = (line for line in lines if line.startswith("srun "))
    assert line.startswith(
        f"srun --kill-on-bad-exit=0 --wait=600 {sys.executable} -u -m launch.train "
    )
    # The shell gives the program the words that were typed.
    called = line.removesuffix(" &").partition("-m launch.train ")[2]
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {called}"], capture_output=True, text=True
    )
    assert tuple(done.stdout.splitlines()) == TRAIN[1:]


def test_a_sweep_is_an_array_of_its_runs():
    sweep = ("--sweep=model.latent_dim&seed=8&0,16&1,32&2", "--sweep=model.coder.bias=True,False")
    lines = script("--at_once=4", "--name=sizes", "--", "sweep", "--config=dense", *sweep)
    assert "#SBATCH --array=0-5%4" in lines and "#SBATCH --output=sizes-%A_%a.out" in lines
    (line,) = (line for line in lines if line.startswith("srun "))
    assert line.endswith(' --index="$SLURM_ARRAY_TASK_ID" &')


@pytest.mark.parametrize(
    "words",
    [
        ("sweep", "--sweep=seed=0,1,2"),
        ("sweep", "--sweep=seed=int:0..9", "--trials=50"),
        ("search", "--config=search_plant"),
    ],
    ids=lambda words: words[0],
)
def test_workers_are_an_array_of_the_same_command(words):
    lines = script("--workers=20", "--at_once=8", "--name=many", "--gpus=1", "--", *words)
    assert "#SBATCH --array=0-19%8" in lines and "#SBATCH --output=many-%A_%a.out" in lines
    (line,) = (line for line in lines if line.startswith("srun "))
    assert "--index" not in line and line.endswith(f"{words[-1]} &")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "error: -- : must name a program and its flags, one of train, evaluate,"),
        (("--", "tain"), "error: -- tain: must name a program"),
        (("--", "submit"), "error: -- submit: must name a program"),
        (("train",), "error: train: -- is missing before it; flags of submit come first, then --"),
        (("train", "--workdir=x"), "error: train: -- is missing before it"),
        (("runs/x", "train"), "error: train: -- is missing before it"),
        (("tain", "--workdir=x"), "Unknown command line flag 'workdir'"),
        (("x", "--", *TRAIN), "error: x: flags of submit come first, then -- and a program"),
        (("--time=soon", "--", *TRAIN), "error: --time=soon: must be minutes, HH:MM:SS or DAYS-"),
        (("--nodes=0", "--", *TRAIN), "error: --nodes=0: must be a whole number, at least 1"),
        (("--nodes=2", "--", "search"), "error: --nodes=2 --tasks=1: search is one process; must"),
        (("--at_once=2", "--", *TRAIN), "error: --at_once=2: is for sweep, not for train"),
        (("--", "train", "--config.model.latent_dim=-1"), "latent_dim=-1"),
        (("--", "sweep", "--config=dense"), "error: -- sweep: must have --sweep="),
        (
            ("--workers=2", "--", *TRAIN),
            "error: --workers=2: is for sweep and search, not for train",
        ),
        (
            ("--workers=2", "--", "sweep", "--sweep=seed=0,1", "--index=1"),
            "error: --workers=2: takes runs as they come; without --index",
        ),
        (("--", "sweep", "--sweep=seed=1", "--trials=3"), "--workers=N takes --trials"),
        (("--workers=0", "--", "search"), "--workers=0"),
        (("--scheduler=pbs", "--", *TRAIN), "--scheduler=pbs"),
        (("--name=a b", "--", *TRAIN), "error: --name=a b: must be letters, digits and _"),
        (("--name=../a", "--", *TRAIN), "error: --name=../a: must be letters, digits and _"),
        (("--name=a\nrm x", "--", *TRAIN), "error: --name='a\\nrm x': must be letters"),
        (("--partition=a b", "--", *TRAIN), "error: --partition=a b: must be letters"),
        (("--account=", "--", *TRAIN), "error: --account=: must be letters"),
        (("--option=--qos=a\nrm x", "--", *TRAIN), "must be one line, without control"),
        (("--option=--", "--", *TRAIN), "error: --option=--: must be an option of sbatch"),
        (("--memory=00G", "--", *TRAIN), "error: --memory=00G: must be a number with K, M,"),
        (("--option=qos=low", "--", *TRAIN), "error: --option=qos=low: must be an option of sb"),
        (("--setup=a\x1b[2J", "--", *TRAIN), "error: --setup='a\\x1b[2J': must be one line"),
        (("--memory=64 G", "--", *TRAIN), "error: --memory=64 G: must be a number with K, M,"),
        (("--stop_seconds=65536", "--", *TRAIN), "--stop_seconds=65536: Slurm takes at most 65535"),
        (("--nodes=9999999", "--", *TRAIN), "--nodes=9999999: 9999999 processes; must be at most"),
        (("--nodes=60000", "--tasks=2", "--", *TRAIN), "--nodes=60000: 120000 processes; must be"),
        (("--workers=100001", "--", "search"), "--workers=100001: 100001 processes; must be at"),
        (("--", "search", "--config.run.data.source=\udcff"), "udcff': is no text in UTF-8"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(words, said):
    done = submit("--show", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout


def test_where_there_is_no_slurm_the_script_can_be_shown():
    done = submit("--", *TRAIN, PATH="/nowhere")
    assert done.returncode == 2
    assert "there is no sbatch here; --show prints the script" in done.stderr

"""Jobs on Kubernetes and SkyPilot: objects that a cluster takes, and what they make of exit codes.

Nothing here runs a cluster: `cluster_objects` says what one would.
"""

import copy
import dataclasses
import fnmatch
import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from aejax.errors import InputError
from aejax.launchers import Launch, detect
from launch import on_kubernetes, on_skypilot
from launch.job import Job, mebibytes, quoted
from tests.launch import cluster_objects
from tests.launch.cluster_objects import Refused, outcome, pods
from tests.launch.test_submit import submit

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "launch" / "kubernetes"
WORDS = (
    "--config=dense",
    "--config.duration=5 epochs",
    '--workdir=runs/it\'s "mine": #1 - {a} \\n',
    "--config.note=$HOME $$ $(JOB_COMPLETION_INDEX) $(",
    "--config.other=é\n  ✓ 😀\t%",
)
GANG = Job(
    name="deep",
    program="train",
    words=WORDS,
    nodes=2,
    gpus=8,
    cpus=4,
    memory="64G",
    image="somewhere/aejax:0.1",
    volumes=(("runs", "/shared"), ("data", "/data sets")),
    queue="team",
)
BARE = Job(name="a", program="train", words=(), image="aejax", volumes=(("runs", "/shared"),))
ONE = Job(
    name="on",  # a word that YAML would read as true
    program="evaluate",
    words=("--workdir=runs/deep",),
    image="aejax",
    volumes=(("runs", "/shared"),),
    restarts=0,
)
WIDE = Job(
    name="wide",
    program="train",
    words=WORDS,
    nodes=3,
    tasks=4,
    gpus=8,
    memory="10G",
    image="aejax",
    volumes=(("runs", "/shared"),),
)
JOBS = {"gang": GANG, "bare": BARE, "one": ONE, "wide": WIDE}
SWEEP = Job(
    name="sizes",
    program="sweep",
    words=("--config=dense", "--sweep=seed=0,1,2,3,4,5"),
    runs=6,
    at_once=4,
    image="aejax",
    volumes=(("runs", "/shared"),),
)


def but(job: Job, **changes: object) -> Job:
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]


def rendered(kind: str, job: Job) -> list[dict]:
    return list(yaml.safe_load_all(on_kubernetes.manifest(kind, job)))


def job_spec(objects: list[dict]) -> dict:
    """The spec of the Job that objects have in them."""
    first = objects[0] if objects[0]["kind"] != "Service" else objects[1]
    spec = first["spec"]
    if first["kind"] == "TrainingRuntime":
        spec = spec["template"]["spec"]
    return spec if first["kind"] == "Job" else spec["replicatedJobs"][0]["template"]["spec"]


@pytest.mark.parametrize("kind", on_kubernetes.KINDS)
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_cluster_takes_the_objects(kind, job):
    objects = rendered(kind, job)
    cluster_objects.check(objects)
    kinds = {"jobset": ["JobSet"], "trainjob": ["TrainingRuntime", "TrainJob"], "job": ["Job"]}
    service = ["Service"] if kind == "job" and job.processes > 1 else []
    assert [each["kind"] for each in objects] == service + kinds[kind]
    assert {each["metadata"]["name"] for each in objects} == {job.name}
    spec = job_spec(objects)
    assert spec["completions"] == spec["parallelism"] == job.nodes * job.tasks
    waits = objects[-1]["spec"].get("suspend"), objects[-1]["metadata"].get("labels")
    assert waits == ((True, {"kueue.x-k8s.io/queue-name": "team"}) if job.queue else (None, None))


@pytest.mark.parametrize("kind", on_kubernetes.KINDS)
def test_a_pod_has_its_part_of_a_node_and_no_rights(kind):
    objects = rendered(kind, WIDE)
    pod = job_spec(objects)["template"]["spec"]
    (container,) = pod["containers"]
    resources = container.get("resources")
    if kind == "trainjob":
        resources = objects[1]["spec"]["trainer"]["resourcesPerNode"]
    assert resources == {
        "requests": {"memory": "2560Mi"},
        "limits": {"memory": "2560Mi", "nvidia.com/gpu": "2"},
    }
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"] and not pod["enableServiceLinks"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert container["workingDir"] == container["volumeMounts"][0]["mountPath"] == "/shared"
    assert container["image"] == "aejax"


@pytest.mark.parametrize("kind", on_kubernetes.KINDS)
def test_the_words_of_a_command_arrive_as_they_were_typed(kind):
    for command, _, _ in pods(rendered(kind, GANG)):
        own = ["aejax", "train", "--processes=2", "--connect_seconds=600"]
        assert command == [*own, *WORDS]
    ((command, _, _),) = pods(rendered(kind, ONE))
    assert command == ["aejax", "evaluate", "--workdir=runs/deep"]


@pytest.mark.parametrize("kind", on_kubernetes.KINDS)
@pytest.mark.parametrize("job", [GANG, WIDE, BARE], ids=lambda job: job.name)
def test_the_processes_of_the_pods_find_one_another(kind, job):
    started = list(pods(rendered(kind, job)))
    assert len(started) == job.processes
    hosts = [full for _, _, full in started]
    for number, (command, environment, full) in enumerate(started):
        said = [word for word in command if word.startswith("--processes=")]
        processes = int(said[0].partition("=")[2]) if said else None
        found = detect(environment, processes, lambda full=full: full)
        if job.processes == 1:
            assert found is None and processes is None
            continue
        assert isinstance(found, Launch)
        assert (found.processes, found.process, found.late) == (job.processes, number, True)
        # Where process 0 is: its own full name, or what leads to it from the same namespace.
        assert found.host in (hosts[0], hosts[0].removesuffix(".default.svc.cluster.local"))


GANG_ENDS = [(0, "done"), (1, "again, counted"), (2, "failed"), (75, "again")]
GANG_ENDS += [(137, "again, counted"), (134, "again, counted"), (52, "again, counted")]


@pytest.mark.parametrize("kind", on_kubernetes.KINDS)
@pytest.mark.parametrize(("code", "then"), GANG_ENDS)
def test_exit_codes_decide_what_starts_again(kind, code, then):
    objects = rendered(kind, GANG)
    assert outcome(objects, code) == then
    if code not in (0, 2):  # evicted, whether it could save in time or not
        assert outcome(objects, code, evicted=True) == "again"


def test_a_failed_job_starts_again_as_often_as_was_said():
    for restarts in (0, 7):
        job = but(GANG, restarts=restarts)
        assert job_spec(rendered("job", job))["backoffLimitPerIndex"] == restarts
        (jobset,) = rendered("jobset", job)
        assert jobset["spec"]["failurePolicy"]["maxRestarts"] == restarts


def test_a_sweep_is_an_indexed_job_whose_runs_fail_alone():
    objects = rendered("job", SWEEP)
    cluster_objects.check(objects)
    (job,) = objects
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"]) == (6, 4)
    assert "maxFailedIndexes" not in spec and "subdomain" not in spec["template"]["spec"]
    indices = [command[-1] for command, _, _ in pods(objects)]
    assert indices == [f"--index={number}" for number in range(6)]
    assert [outcome(objects, code) for code in (0, 1, 2, 75)] == [
        "done",
        "again, counted",
        "run failed",
        "again",
    ]
    assert rendered("job", but(SWEEP, at_once=9))[0]["spec"]["parallelism"] == 6


POD = "template/spec/"
SET = "0/spec/replicatedJobs/0/template/spec/"
BROKEN = [
    ("jobset", "0/apiVersion", "jobset.x-k8s.io/v1"),
    ("jobset", "0/metadata/name", "a" * 50),
    ("jobset", "0/metadata/name", "Deep"),
    ("jobset", "0/metadata/labels/kueue.x-k8s.io~queue", "a b"),
    ("jobset", "0/spec/suspended", True),
    ("jobset", "0/spec/failurePolicy/maxRestarts", "3"),
    ("jobset", "0/spec/failurePolicy/restartStrategy", "All"),
    ("jobset", "0/spec/failurePolicy/rules/0/name", "bad-input"),
    ("jobset", "0/spec/failurePolicy/rules/0/name", "stoppedOnRequest"),
    ("jobset", "0/spec/failurePolicy/rules/0/action", "Fail"),
    ("jobset", "0/spec/failurePolicy/rules/0/onJobFailureReasons", ["ExitCode"]),
    ("jobset", "0/spec/failurePolicy/rules/0/onJobFailureMessages", ["a"]),
    ("jobset", "0/spec/failurePolicy/rules/0/targetReplicatedJobs", ["other"]),
    ("jobset", "0/spec/network/enableDNSHostnames", "yes"),
    ("jobset", SET + "completionMode", "Idx"),
    ("jobset", SET + "backOffLimit", 0),
    ("jobset", SET + "completions", "2"),
    ("jobset", SET + POD + "restartPolicy", "Always"),
    ("jobset", SET + POD + "restartPolicy", "OnFailure"),
    ("jobset", SET + "podFailurePolicy/rules/0/action", "Restart"),
    ("jobset", SET + "podFailurePolicy/rules/0/action", "FailIndex"),
    ("jobset", SET + "podFailurePolicy/rules/0/onExitCodes/values", [0]),
    ("jobset", SET + "podFailurePolicy/rules/0/onExitCodes/operator", "in"),
    ("jobset", SET + "podFailurePolicy/rules/0/onExitCodes/containerName", "other"),
    ("jobset", SET + "podFailurePolicy/rules/2/onPodConditions/0/status", True),
    ("jobset", SET + "podFailurePolicy/rules/2/onPodConditions/0/status", None),
    ("jobset", SET + POD + "containers/0/commands", ["a"]),
    ("jobset", SET + POD + "containers/0/command", "a b"),
    ("jobset", SET + POD + "containers/0/volumeMounts/0/name", "other"),
    ("jobset", SET + POD + "containers/0/volumeMounts/1/mountPath", "/shared"),
    ("jobset", SET + POD + "containers/0/resources/limits/memory", "64 G"),
    ("jobset", SET + POD + "volumes/2/emptyDir/medium", "memory"),
    ("jobset", SET + POD + "securityContext/runAsUser", 0),
    ("job", "0/spec/selector", {"app.kubernetes.io/instance": "other"}),
    ("job", "0/spec/clusterIP", "10.0.0.1"),
    ("job", "0/metadata/name", "other"),
    ("job", "1/spec/template/spec/subdomain", "other"),
    ("job", "1/spec/template/metadata/labels/app.kubernetes.io~instance", "other"),
    ("job", "1/spec/parallelism", 3),
    ("job", "1/spec/backoffLimitPerIndex", None),
    ("job", "1/spec/maxFailedIndexes", 3),
    ("trainjob", "0/spec/mlPolicy/JAX", {}),
    ("trainjob", "0/spec/mlPolicy/jax", None),
    ("trainjob", "0/spec/template/spec/failurePolicy/rules/0/action", "Fail"),
    ("trainjob", "0/spec/template/spec/replicatedJobs/0/template/metadata/labels", {}),
    ("trainjob", "1/spec/runtimeRef", {"kind": "TrainingRuntime"}),
    ("trainjob", "1/spec/trainer/numNodes", "2"),
    ("trainjob", "1/spec/trainer/resources", {}),
    ("trainjob", "1/spec/trainer/resourcesPerNode/limit", {}),
]


@pytest.mark.parametrize(("kind", "path", "value"), BROKEN, ids=str)
def test_a_broken_object_is_noticed(kind, path, value):
    objects = rendered(kind, GANG)
    *way, last = path.split("/")
    # A / within a key is written ~.
    broken = copy.deepcopy(objects)
    place = broken
    for step in way:
        place = place[int(step) if step.isdecimal() else step]
    key = last.replace("~", "/")
    if value is None:
        del place[key]
    else:
        assert place.get(key) != value
        place[key] = value
    with pytest.raises((Refused, jsonschema.ValidationError)):
        cluster_objects.check(broken)


SKY = but(GANG, queue="", accelerator="H100", setup=("export A=1", "true"))


def test_skypilot_takes_the_task():
    task = yaml.safe_load(on_skypilot.task(SKY))
    cluster_objects.check_task(task)
    assert task["num_nodes"] == 2
    assert task["resources"] == {
        "image_id": "docker:somewhere/aejax:0.1",
        "accelerators": "H100:8",
        "cpus": "4+",
        "memory": "64+",
        "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]},
    }
    assert task["volumes"] == {"/shared": "runs", "/data sets": "data"}
    assert "workdir" not in task and "setup" not in task
    checkout = yaml.safe_load(on_skypilot.task(but(SKY, image="")))
    cluster_objects.check_task(checkout)
    assert checkout["workdir"] == "."
    activate = "source ~/aejax/bin/activate\n"
    assert checkout["setup"].endswith(f"{activate}uv pip install -c constraints.txt '.[cuda]'\n")
    assert checkout["run"] == activate + task["run"]
    for path, value in (
        (("job_recovery", "recover_on_exit_code"), [75]),
        (("job_recovery", "recover_on_exit_codes"), [300]),
        (("accelerator",), "H100:8"),
    ):
        broken = copy.deepcopy(task)
        place = broken["resources"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            cluster_objects.check_task(broken)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_node_of_skypilot_starts_its_process(tmp_path, rank, code):
    job = but(SKY, volumes=(("runs", str(tmp_path / "it's shared")),))
    (tmp_path / "it's shared").mkdir()
    program(tmp_path / "aejax", 'printf "%s\\0" "$PWD" "$A" "$@"\nexit ' + str(code))
    program(tmp_path / "sleep", 'printf "slept %s\\0" "$1"')
    node = {"SKYPILOT_NODE_RANK": rank, "SKYPILOT_NUM_NODES": "2"}
    node["SKYPILOT_NODE_IPS"] = "10.0.0.4\n10.0.0.5"
    done = subprocess.run(
        ["bash", "-c", yaml.safe_load(on_skypilot.task(job))["run"]],
        env={**os.environ, **node, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    together = ["--coordinator=10.0.0.4:61440", "--processes=2", f"--process={rank}"]
    expected = [str(tmp_path / "it's shared"), "1", "train", *together, "--connect_seconds=600"]
    expected += WORDS
    if code == 75 and rank == "1":  # process 0 may still be writing
        expected.append("slept 120")
    assert done.stdout.split("\0")[:-1] == expected and done.returncode == code


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


GOOD = ("--image=aejax", "--volume=runs:/shared")
TYPED = ("train", ("--config=dense", "--workdir=runs/a"))
TRAIN = ("--", TYPED[0], *TYPED[1])
SWEEPING = ("--", "sweep", "--config=dense", "--sweep=seed=0,1,2")


@pytest.mark.parametrize(
    ("render", "job", "said"),
    [
        ("jobset", but(BARE, image=""), "--image=: --scheduler=jobset needs the image"),
        ("job", but(BARE, volumes=()), "--volume=: --scheduler=job needs CLAIM:/PATH"),
        ("trainjob", but(GANG, gpus=8, tasks=3), "--gpus=8 --tasks=3: a process is a pod"),
        ("jobset", but(BARE, memory="64 GB"), "--memory=64 GB: must be a number with K, M, G or"),
        ("jobset", but(BARE, memory="0"), "--memory=0: must be a number with K, M, G or T"),
        ("jobset", but(BARE, name="Deep"), "--name=Deep: must be small letters, digits and -"),
        ("job", but(BARE, name="1a"), "--name=1a: must be"),
        (
            "jobset",
            SWEEP,
            "-- sweep: is an array; --scheduler=jobset has none, --scheduler=job has",
        ),
        ("trainjob", SWEEP, "-- sweep: is an array; --scheduler=trainjob has none"),
        ("skypilot", SWEEP, "-- sweep: is an array; --scheduler=skypilot has none"),
        (
            "skypilot",
            but(SKY, accelerator=""),
            "--gpus=8: --scheduler=skypilot needs --accelerator",
        ),
        ("skypilot", but(SKY, tasks=2), "--tasks=2: --scheduler=skypilot starts one process"),
        ("skypilot", but(SKY, volumes=()), "--volume=: --scheduler=skypilot needs NAME:/PATH"),
        ("skypilot", but(SKY, memory="1X"), "--memory=1X: must be a number"),
        ("jobset", but(BARE, image="a b"), "--image=a b: must be an image, as registry"),
        ("job", but(BARE, image="aejax:0.1\n"), "--image='aejax:0.1\\n': must be an image"),
        ("trainjob", but(BARE, image="Somewhere"), "--image=Somewhere: must be an image"),
        ("skypilot", but(SKY, image="a\x1b"), "--image='a\\x1b': must be an image"),
        ("jobset", but(GANG, queue="my team"), "--queue=my team: must be small letters"),
        ("job", but(GANG, queue="team\n"), "--queue='team\\n': must be small letters"),
        ("job", but(GANG, queue="a" * 64), f"--queue={'a' * 64}: must be small letters"),
        ("job", but(GANG, queue="-team"), "--queue=-team: must be small letters"),
        (
            "jobset",
            but(BARE, volumes=(("runs", "/shared"), ("data", "/shared/"))),
            "--volume=data:/shared/: /shared has the volume runs already",
        ),
        (
            "skypilot",
            but(SKY, volumes=(("runs", "/shared"), ("data", "/shared"))),
            "--volume=data:/shared: /shared has the volume runs already",
        ),
        (
            "job",
            but(GANG, volumes=(("runs", "//dev/shm"),)),
            "--volume=runs://dev/shm: /dev/shm has the memory that GPUs share already",
        ),
        ("skypilot", but(SKY, accelerator="H 100"), "--accelerator=H 100: must be a kind of GPU"),
        ("skypilot", but(SKY, accelerator="H100:8"), "--accelerator=H100:8: must be a kind"),
        ("skypilot", but(SKY, gpus=0), "--accelerator=H100: needs --gpus, how many a node has"),
        (
            "skypilot",
            but(SKY, words=("--workdir=a\rb",)),
            "-- train '--workdir=a\\rb': has a control character",
        ),
        ("skypilot", but(SKY, words=("a\u2028b",)), "-- train 'a\\u2028b': has a control char"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_by_name(render, job, said):
    with pytest.raises(InputError) as refused:
        on_skypilot.task(job) if render == "skypilot" else on_kubernetes.manifest(render, job)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--scheduler=job", "--image=a", "--volume=runs", *TRAIN),
            "--volume=runs: must be CLAIM:",
        ),
        (
            ("--scheduler=job", "--image=a", "--volume=a..b:/x", *TRAIN),
            "--volume=a..b:/x: must be CLAIM:/PATH",
        ),
        (
            ("--scheduler=job", "--image=a", "--volume=a:/x\ny", *TRAIN),
            "--volume='a:/x\\ny': must be CLAIM:/PATH",
        ),
        (
            ("--scheduler=job", "--image=a", "--volume=a://", *TRAIN),
            "--volume=a://: the image lies at /; must be another path",
        ),
        (
            ("--scheduler=job", "--restarts=9999999999", *GOOD, *TRAIN),
            "--restarts=9999999999: must be a whole number, at least 0, at most 2147483647",
        ),
        (("--scheduler=job", "--time=5", *GOOD, *TRAIN), "--time=5: is for --scheduler=slurm, not"),
        (("--image=a", *TRAIN), "--image=a: is for --scheduler=jobset or job or trainjob or sky"),
        (("--scheduler=jobset", *GOOD, *SWEEPING), "-- sweep: is an array; --scheduler=jobset"),
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_one_line(words, said):
    done = submit("--show", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}"), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout


def test_a_name_may_be_as_long_as_its_pods_allow():
    for kind, longest in (("jobset", 48), ("trainjob", 48), ("job", 61)):
        job = but(GANG, name="a" * longest)
        cluster_objects.check(rendered(kind, job))
        with pytest.raises(InputError, match=f"at most {longest} of them"):
            on_kubernetes.manifest(kind, but(job, name="a" * (longest + 1)))


def test_manifests_go_to_kubectl_and_tasks_to_sky(tmp_path):
    path = f"{tmp_path}:/usr/bin:/bin"
    program(
        tmp_path / "kubectl", f'echo "$@" > "{tmp_path}/words"; cat > "{tmp_path}/stdin"\necho ok'
    )
    program(tmp_path / "sky", f'echo "$@" > "{tmp_path}/words"; cp "${{@: -1}}" "{tmp_path}/stdin"')
    job = Job("aejax-train", *TYPED, image="aejax", volumes=(("runs", "/shared"),))
    done = submit("--scheduler=jobset", *GOOD, *TRAIN, PATH=path)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert (tmp_path / "words").read_text() == "create -f -\n"
    assert (tmp_path / "stdin").read_text() == on_kubernetes.manifest("jobset", job)
    done = submit("--scheduler=skypilot", *GOOD, *TRAIN, PATH=path)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "words").read_text().split()
    assert words[:-1] == ["jobs", "launch", "--yes", "--detach-run"]
    assert words[-1].endswith(".yaml") and not os.path.exists(words[-1])
    assert (tmp_path / "stdin").read_text() == on_skypilot.task(job)
    program(tmp_path / "kubectl", 'echo "Error: already\n exists" >&2; exit 1')
    done = submit("--scheduler=job", *GOOD, *TRAIN, PATH=path)
    assert (done.returncode, done.stderr) == (1, "failed: kubectl: Error: already exists\n")


@pytest.mark.parametrize(("scheduler", "missing"), [("trainjob", "kubectl"), ("skypilot", "sky")])
def test_a_program_that_is_missing_is_one_line(scheduler, missing):
    done = submit(f"--scheduler={scheduler}", *GOOD, *TRAIN, PATH="/nowhere")
    assert done.returncode == 2 and done.stderr == (
        f"error: --scheduler={scheduler}: there is no {missing} here; --show prints the manifest\n"
    )


def test_strings_and_amounts_of_memory():
    for text in ("yes", "", 'a "b" \\ \n\t\x7f\x85\u2028\ufeff', "# - : {}", "é😀", *WORDS):
        assert yaml.safe_load(quoted(text)) == text
    assert [mebibytes(text) for text in ("512", "512M", "2G", "1T", "1024K")] == [
        512,
        512,
        2048,
        2**20,
        1,
    ]


def test_the_image_is_made_of_what_the_checkout_has():
    text = (KUBERNETES / "Dockerfile").read_text()
    lines = [line.split() for line in text.splitlines() if line and line[0] not in "# "]
    steps = [line[0] for line in lines]
    assert steps.index("USER") < steps.index("ENTRYPOINT") and steps.count("FROM") == 1
    assert ["ENTRYPOINT", '["aejax"]'] in lines
    wanted = re.search(r"Python ([\d.]+)", (ROOT / "constraints.txt").read_text().splitlines()[0])
    assert wanted and ["FROM", f"python:{wanted[1]}-slim"] in lines
    user = job_spec(rendered("job", BARE))["template"]["spec"]["securityContext"]["runAsUser"]
    assert ["USER", f"{user}:{user}"] in lines and f"--uid {user} " in text
    copied = [source for line in lines if line[0] == "COPY" for source in line[1:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    assert sorted(source.rstrip("/") for source in copied) == sorted(kept)
    assert all((ROOT / source).exists() for source in copied)
    for extra in re.findall(r"'\.\[(.*)\]'", text):
        assert extra in project()["project"]["optional-dependencies"]


def test_templates_are_part_of_the_package():
    patterns = project()["tool"]["setuptools"]["package-data"]["launch"]
    for path in [*KUBERNETES.iterdir(), *(ROOT / "launch" / "slurm").iterdir()]:
        own = str(path.relative_to(ROOT / "launch"))
        assert path.is_dir() or any(fnmatch.fnmatch(own, pattern) for pattern in patterns), own


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    "image",
    [
        "aejax",
        "somewhere/aejax:0.1",
        "Localhost:5000/team/ae__jax-1:v1.0_x",
        "[::1]:5000/aejax",
        "registry.example.org/a/b@sha256:" + "0" * 64,
    ],
)
def test_images_that_registries_have_are_taken(image):
    cluster_objects.check(rendered("jobset", but(BARE, image=image)))

"""What a Kubernetes cluster would say of objects, and do with them, as its documentation has it.

Core objects are checked by Kubernetes' own schemas, those of JobSet, Trainer and SkyPilot by theirs
(reduced, in `schemas/`); `_check_*` has what admission checks beyond schemas.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

VERSIONS = ("1.30", kubernetes_validate.latest_version())
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (Path(__file__).parent / "schemas").glob("*.json")
}
Object = dict[str, Any]
_QUANTITY = r"[0-9]+(\.[0-9]+)?([mkKMGTPE]|[KMGTPE]i)?"
_LABEL_VALUE = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


class Refused(Exception):
    """What a cluster would not take; says why."""


def check(objects: list[Object]) -> None:
    """Raises Refused, or an error of a schema, for objects that a cluster would not take."""
    for each in objects:
        _check_metadata(each["metadata"])
        kind = each["kind"]
        if kind in ("Service", "Job"):
            _check_core(each)
        if kind == "Job":
            _check_job(each["spec"], each["metadata"]["name"])
        elif kind == "JobSet":
            _by(SCHEMAS["jobset"], each)
            _check_jobset(each["spec"], each["metadata"]["name"])
        elif kind == "TrainingRuntime":
            _by(SCHEMAS["trainjob"]["trainingruntime"], each)
            spec = each["spec"]["template"]["spec"]
            _by(SCHEMAS["jobset"]["properties"]["spec"], spec)
            _check_jobset(spec, each["metadata"]["name"])
            _check_runtime(each)
        elif kind == "TrainJob":
            _by(SCHEMAS["trainjob"]["trainjob"], each)
            _check_trainjob(each)
    _check_service(objects)


def check_task(task: Object) -> None:
    """The same for a task of SkyPilot."""
    _by(SCHEMAS["skypilot"], task)
    _want(re.fullmatch(r"[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*", task["name"]), "name")
    _want(all(path.startswith("/") for path in task["volumes"]), "paths of volumes")


def _want(holds: object, what: str) -> None:
    if not holds:
        raise Refused(what)


def _by(schema: Object, found: Object) -> None:
    jsonschema.Draft202012Validator(schema).validate(found)


def _check_core(found: Object) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(found, version, strict=True)


def _label(name: str, what: str, first: str = "a-z0-9") -> None:
    _want(len(name) <= 63 and re.fullmatch(f"[{first}]([-a-z0-9]*[a-z0-9])?", name), what)


def _check_metadata(metadata: Object) -> None:
    _label(metadata["name"], "metadata.name", "a-z")
    for key, value in metadata.get("labels", {}).items():
        _want(re.fullmatch(rf"([-a-z0-9.]+/)?{_LABEL_VALUE}", key), f"label {key}")
        _want(re.fullmatch(_LABEL_VALUE, value), f"value of label {key}")


def _check_job(spec: Object, name: str) -> None:
    """Of batch/v1: validation that its schema leaves out."""
    pod = spec["template"]["spec"]
    _want(spec["completionMode"] == "Indexed", "completionMode")
    _want(0 < spec["parallelism"] <= spec["completions"], "parallelism")
    _label(f"{name}-{spec['completions'] - 1}", "names of pods")
    per_index = "backoffLimitPerIndex" in spec
    if "maxFailedIndexes" in spec:
        _want(per_index and spec["maxFailedIndexes"] <= spec["completions"], "maxFailedIndexes")
    _want(pod["restartPolicy"] in ("Never", "OnFailure"), "restartPolicy")
    if "podFailurePolicy" in spec or per_index:
        _want(pod["restartPolicy"] == "Never", "restartPolicy with podFailurePolicy")
    containers = [each["name"] for each in pod["containers"]]
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        _check_pod_rule(rule, containers, per_index)
    _check_pod(pod)
    _check_metadata({"name": "a", **spec["template"]["metadata"]})


def _check_pod_rule(rule: Object, containers: list[str], per_index: bool) -> None:
    _want(rule["action"] in ("FailJob", "FailIndex", "Ignore", "Count"), "action")
    _want(rule["action"] != "FailIndex" or per_index, "FailIndex without backoffLimitPerIndex")
    _want(("onExitCodes" in rule) != ("onPodConditions" in rule), "a rule has one requirement")
    if codes := rule.get("onExitCodes"):
        _want(codes["operator"] in ("In", "NotIn"), "operator")
        _want(codes["values"] and len(codes["values"]) <= 255, "values")
        _want(codes["operator"] != "In" or 0 not in codes["values"], "0 is no failure")
        _want(codes.get("containerName", containers[0]) in containers, "containerName")
    for each in rule.get("onPodConditions", []):
        _want(each["status"] in ("True", "False", "Unknown"), "status")


def _check_pod(pod: Object) -> None:
    volumes = [each["name"] for each in pod["volumes"]]
    _want(len(set(volumes)) == len(volumes), "names of volumes")
    _want(pod.get("terminationGracePeriodSeconds", 30) > 0, "terminationGracePeriodSeconds")
    security = pod["securityContext"]
    _want(security["fsGroupChangePolicy"] in ("OnRootMismatch", "Always"), "fsGroupChangePolicy")
    _want(security["seccompProfile"]["type"] in ("RuntimeDefault", "Unconfined"), "seccompProfile")
    _want(not security["runAsNonRoot"] or security["runAsUser"] != 0, "runAsUser")
    for volume in pod["volumes"]:
        _label(volume["name"], "name of a volume")
        _want(volume.get("emptyDir", {}).get("medium", "") in ("", "Memory"), "medium")
    for container in pod["containers"]:
        _label(container["name"], "name of a container")
        paths = [each["mountPath"] for each in container["volumeMounts"]]
        _want(len(set(paths)) == len(paths), "mountPath")
        _want(not any(":" in path for path in paths), "mountPath")
        _want(all(each["name"] in volumes for each in container["volumeMounts"]), "volumeMounts")
        _check_resources(container.get("resources", {}))


def _check_resources(resources: Object) -> None:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, amount in [*limits.items(), *requests.items()]:
        _want(re.fullmatch(_QUANTITY, amount), f"quantity of {name}")
        _want(name in ("cpu", "memory") or "/" in name, f"resource {name}")
    for name, amount in requests.items():
        if "/" in name:  # devices are not shared
            _want(limits.get(name) == amount, f"request of {name}")


def _check_jobset(spec: Object, name: str) -> None:
    """The Jobs of a set, what its webhook checks, and its CEL rules on creation."""
    jobs = {each["name"]: each for each in spec["replicatedJobs"]}
    _want(len(jobs) == len(spec["replicatedJobs"]), "names of replicatedJobs")
    ordered = spec.get("startupPolicy", {}).get("startupPolicyOrder") == "InOrder"
    _want(not (ordered and any("dependsOn" in each for each in jobs.values())), "startupPolicy")
    for each in jobs.values():
        job = f"{name}-{each['name']}-{each.get('replicas', 1) - 1}"
        template = {"metadata": {}, **each["template"]}
        _check_core({"apiVersion": "batch/v1", "kind": "Job", **template})
        _check_job(template["spec"], job)
        _label(f"{job}-{template['spec']['completions'] - 1}-abcde", "names of pods", "a-z")
    rules = spec["failurePolicy"]["rules"]
    _want(len({rule["name"] for rule in rules}) == len(rules), "names of rules")
    for rule in rules:
        _want(set(rule.get("targetReplicatedJobs", [])) <= set(jobs), "targetReplicatedJobs")
        for pattern in rule.get("onJobFailureMessagePatterns", []):
            re.compile(pattern)


def _check_runtime(runtime: Object) -> None:
    """Trainer finds what it fills in by these names."""
    policy = runtime["spec"]["mlPolicy"]
    _want(set(policy) == {"numNodes", "jax"}, "mlPolicy")
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    labels = job["template"]["metadata"]["labels"]
    _want(labels.get("trainer.kubeflow.org/trainjob-ancestor-step") == "trainer", "ancestor step")
    names = [each["name"] for each in job["template"]["spec"]["template"]["spec"]["containers"]]
    _want("node" in names, "the container node")


def _check_trainjob(job: Object) -> None:
    trainer = job["spec"]["trainer"]
    resources = trainer.get("resourcesPerNode", {})
    container = {"name": "node", "resources": resources}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    _check_core({**pod, "spec": {"containers": [container]}})
    _check_resources(resources)


def _check_service(objects: list[Object]) -> None:
    """A Service gives names to the pods that it selects and that have its name as subdomain."""
    jobs = [each for each in objects if each["kind"] == "Job"]
    subdomains = {each["spec"]["template"]["spec"].get("subdomain") for each in jobs} - {None}
    services = [each for each in objects if each["kind"] == "Service"]
    _want({each["metadata"]["name"] for each in services} == subdomains, "subdomain")
    for service in services:
        selector = service["spec"]["selector"]
        _want(service["spec"]["clusterIP"] == "None", "clusterIP")
        for job in jobs:
            labels = job["spec"]["template"]["metadata"]["labels"]
            _want(selector and selector.items() <= labels.items(), "selector")


def outcome(objects: list[Object], code: int, evicted: bool = False) -> str:
    """What follows when a pod of a job ends so.

    Returns:
        "done", "failed", "again" (and counts nothing), "again, counted"; "run failed" where the
        other runs of a sweep go on.
    """
    last = objects[-1] if objects[-1]["kind"] != "TrainJob" else objects[0]
    if code == 0:
        return "done"
    if last["kind"] == "Job":
        action = _pod_rule(last["spec"], code, evicted)[0]
        words = {"FailJob": "failed", "FailIndex": "run failed", "Ignore": "again"}
        return words.get(action, "again, counted")
    spec = last["spec"] if last["kind"] == "JobSet" else last["spec"]["template"]["spec"]
    (job,) = spec["replicatedJobs"]
    action, message = _pod_rule(job["template"]["spec"], code, evicted)
    assert action in ("FailJob", "Count"), "a pod of a gang does not come back alone"
    assert job["template"]["spec"]["backoffLimit"] == 0
    reason = "PodFailurePolicy" if action == "FailJob" else "BackoffLimitExceeded"
    words = {
        "FailJobSet": "failed",
        "RestartJobSet": "again, counted",
        "RestartJobSetAndIgnoreMaxRestarts": "again",
    }
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule.get("onJobFailureReasons", [reason]) and any(
            re.search(each, message) for each in patterns
        ):
            return words[rule["action"]]
    return words["RestartJobSet"]


def _pod_rule(spec: Object, code: int, evicted: bool) -> tuple[str, str]:
    """The action of the first rule that fits a pod, and what the Job's condition then says."""
    for number, rule in enumerate(spec["podFailurePolicy"]["rules"]):
        end = f"matching {rule['action']} rule at index {number}"
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            name = codes["containerName"]
            return rule["action"], (
                f"Container {name} for pod default/exit-code-2-0 failed with exit code {code} {end}"
            )
        for each in rule.get("onPodConditions", []):
            if evicted and each["type"] == "DisruptionTarget" and each["status"] == "True":
                return rule["action"], f"Pod default/a-0 has condition DisruptionTarget {end}"
    return "Count", "Job has reached the specified backoff limit"


def pods(objects: list[Object]) -> Iterator[tuple[list[str], dict[str, str], str]]:
    """The command, the environment and the full name of each pod that objects give."""
    last = objects[-1]
    name, command, extra = last["metadata"]["name"], None, {}
    if last["kind"] == "Job":
        job, spec, domain = name, last["spec"], last["spec"]["template"]["spec"].get("subdomain")
    else:
        sets = last["spec"] if last["kind"] == "JobSet" else objects[0]["spec"]["template"]["spec"]
        (replicated,) = sets["replicatedJobs"]
        job, spec = f"{name}-{replicated['name']}-0", replicated["template"]["spec"]
        domain = sets["network"].get("subdomain", name)
        assert sets["network"]["enableDNSHostnames"]
    count = spec["completions"]
    if last["kind"] == "TrainJob":  # Trainer's plugin for JAX
        command, count = last["spec"]["trainer"]["command"], last["spec"]["trainer"]["numNodes"]
        address = f"{name}-node-0-0.{name}"
        extra = {"JAX_NUM_PROCESSES": str(count), "JAX_COORDINATOR_PORT": "6666"}
        extra["JAX_COORDINATOR_ADDRESS"] = f"{address}:6666"
    (container,) = spec["template"]["spec"]["containers"]
    for number in range(count):
        host = f"{job}-{number}"
        environment = {each["name"]: each["value"] for each in container["env"]}
        environment |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": host}
        environment |= {"JOB_COMPLETION_INDEX": str(number), **extra}
        if extra:
            environment["JAX_PROCESS_ID"] = str(number)
        words = [expanded(each, environment) for each in command or container["command"]]
        full = f"{host}.{domain}.default.svc.cluster.local" if domain else host
        yield words, environment, full


def expanded(word: str, environment: dict[str, str]) -> str:
    """A word of a container's command, with $(NAME) and $$ put in as Kubernetes does."""

    def put(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", put, word)

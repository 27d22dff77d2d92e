"""Trouble on the way between functions and AWS, made by microburst: for every operation that a backup uses.

Each run is a whole backup of a real database through the proxy, with trouble for its own calls only: a call carries the
mark of its execution in its trace id (mends/invocations.py). It ends in success or in a named error that reaches a
person; it never hangs, panics or leaks.

    LIFEBOAT_SCENARIOS=full      also what takes minutes of waiting: a Region that swallows everything all the while
"""

import dataclasses
import hashlib
import json
import os
import queue
import subprocess
import threading
import time
import urllib.request
import uuid

import pytest
from cloud import answers, free_port, tail
from deployment import TOOLS
from lifeline import LIFELINE, stop
from machines import ROOT, error_classes
from stage import until

REGION = "eu-west-1"
# Every operation on the road of a whole backup with copies. A test compares them with what was really called.
OPERATIONS = [
    ("dynamodb", "GetItem"), ("dynamodb", "TransactWriteItems"),
    ("kms", "DescribeKey"),
    ("rds", "AddTagsToResource"), ("rds", "CopyDBSnapshot"), ("rds", "CreateDBSnapshot"), ("rds", "DeleteDBInstance"),
    ("rds", "DescribeDBInstances"), ("rds", "DescribeDBSnapshots"), ("rds", "ModifyDBInstance"),
    ("rds", "RestoreDBInstanceFromDBSnapshot"),
    ("s3", "GetObject"), ("s3", "ListObjectsV2"), ("s3", "PutObject"),
    ("secretsmanager", "CreateSecret"), ("secretsmanager", "DeleteSecret"), ("secretsmanager", "GetSecretValue"),
]
# On the road of some databases only: troubled where they are called.
SOMETIMES = [("rds", "DescribeDBClusters"), ("rds", "DescribeDBClusterSnapshots")]
# The permissions that an operation needs, where they are called otherwise.
PERMISSIONS = {
    ("dynamodb", "TransactWriteItems"): [("dynamodb", name) for name in (
        "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")],
    ("s3", "ListObjectsV2"): [("s3", "ListBucket")],
    ("secretsmanager", "CreateSecret"): [("secretsmanager", "CreateSecret"), ("secretsmanager", "TagResource")],
}
THROTTLED = {"s3": ("SlowDown", 503), "rds": ("Throttling", 400), "dynamodb": ("ThrottlingException", 400),
             "kms": ("ThrottlingException", 400), "secretsmanager": ("ThrottlingException", 400)}
BROKEN = {"s3": "InternalError", "kms": "KMSInternalException", "dynamodb": "InternalServerError",
          "secretsmanager": "InternalServiceError", "rds": "InternalFailure"}


def trouble(kind: str, service: str) -> dict:
    """A rule's effect, in the words of the service."""
    if kind == "throttled":
        code, status = THROTTLED[service]
        return {"error": {"code": code, "status": status}}
    return {"broken": {"error": {"code": BROKEN[service], "status": 500}},
            "reset": {"reset": True},
            "cut off": {"response": {"abort_frac": 0.5}},
            "shortened": {"response": {"truncate_frac": 0.5}},
            "slow": {"latency": 2500}}[kind]


# Whether a backup that meets it once must succeed. A body that is cut short and says nothing of it, as AWS never sends
# one, is taken for what it says, or for damage.
RECOVERS = {"throttled": True, "broken": True, "reset": True, "cut off": True, "shortened": False, "slow": True}
KINDS = ("throttled", "broken", "reset", "cut off", "shortened", "slow")


@dataclasses.dataclass
class Run:
    """One backup and the rules for its calls; `recovers` says that it must succeed all the same."""

    name: str
    rules: list[dict]
    recovers: bool


def runs() -> list[Run]:
    """Each operation fails once in each way, and each operation fails for good in one way, the ways in turn."""
    found = []
    for hole, times in (("slow to come back", {"times": 4}), *([("gone", {})] if os.environ.get(
            "LIFEBOAT_SCENARIOS") == "full" else [])):
        found.append(Run(f"a Region that swallows everything, {hole}", [
            {"service": "*", "region": REGION, "timeout_ms": 90_000, **times}], recovers=bool(times)))
    found.append(Run("a Region that refuses everything", [{"service": "*", "region": REGION, "reset": True}], False))
    for kind in KINDS:
        found.append(Run(f"each operation once {kind}", [
            {"service": service, "operation": operation, "times": 1, **trouble(kind, service)}
            for service, operation in OPERATIONS + SOMETIMES], recovers=RECOVERS[kind]))
    for number, (service, operation) in enumerate(OPERATIONS):
        kind = KINDS[number % 5]
        found.append(Run(f"{service}-{operation} always {kind}", [
            {"service": service, "operation": operation, **trouble(kind, service)}], recovers=False))
    return found


RUNS = runs()


class Proxy:
    """microburst between functions and cloud."""

    def __init__(self, stage, directory):
        self._stage, self._port = stage, free_port()
        self.url, self._log = f"http://127.0.0.1:{self._port}", directory / "microburst.log"
        with self._log.open("wb") as log:
            self._process = LIFELINE.start(
                [TOOLS / "microburst", "--upstream", stage.cloud.endpoint, "--port", self._port, "--no-resign"], "TERM",
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        until(f"microburst answers; its log: {tail(self._log)}",
              lambda: answers(f"{self.url}/_microburst/health"), 30)
        stage.cloud.order("endpoint", {"url": self.url})

    def close(self):
        self._stage.cloud.order("endpoint", {"url": None})
        stop(self._process, 5)

    def ask(self, path: str, body=None, method="GET"):
        request = urllib.request.Request(f"{self.url}/_microburst/{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@dataclasses.dataclass
class Seen:
    findings: list[str]
    fired: set[tuple[str, str]]
    called: set[tuple[str, str]]
    seconds: float


@pytest.fixture(scope="module")
def proxy(stage, tmp_path_factory):
    proxy = Proxy(stage, tmp_path_factory.mktemp("microburst"))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def results(stage, harness, proxy):
    """Every run, several at once."""
    waiting, found = queue.SimpleQueue(), {}
    for run in RUNS:
        waiting.put(run)

    def work(lane):
        while True:
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            begun = time.monotonic()
            try:
                seen = one(stage, harness, proxy, lane, run)
            except Exception as error:
                seen = Seen([f"{type(error).__name__}: {error}"], set(), set(), 0)
            found[run.name] = dataclasses.replace(seen, seconds=time.monotonic() - begun)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in harness.lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = ROOT / ".cache" / "reports" / "faults.txt"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("".join(f"{seen.seconds:7.2f} s  {'FAILED' if seen.findings else 'ok':6}  {name}\n"
                              for name, seen in sorted(found.items(), key=lambda pair: -pair[1].seconds)))
    return found


def one(stage, harness, proxy, lane, run) -> Seen:
    name = f"fault-{uuid.uuid4().hex[:12]}"
    mine = {"headers": {"x-amzn-trace-id": f"-{mark(name)}"}}
    proxy.ask("rules", [{**rule, **mine} for rule in run.rules], "PATCH")
    execution = stage.start("BackupOrchestration", {"database": lane.name}, name)
    ended = stage.finish(execution, 900)
    fired = {(rule["service"], rule.get("operation", "*")) for rule in proxy.ask("rules")
             if rule.get("headers") == mine["headers"] and rule["fired_count"]}
    proxy.ask("rules", [mine], "DELETE")
    findings = [] if fired else ["nothing was injected"]
    findings += judge(stage, harness, lane, run, execution, ended)
    called = {tuple(action.split(":")) for call in stage.cloud.order(f"calls?execution={execution}")
              for action in call["actions"]}
    harness.clear(lane, execution)
    if findings:
        findings.append(f"{execution} ended {ended['status']} {ended.get('error')}: {str(ended.get('cause'))[:600]}")
    return Seen(findings, fired, called, 0)


def judge(stage, harness, lane, run, execution, ended) -> list[str]:
    """What must be true however the run ended."""
    found, record, error = [], harness.record(execution), ended.get("error")
    if ended["status"] == "FAILED" and (error not in error_classes() or error == "Dr.Internal"):
        found.append(f"{error} is no name for this trouble")
    if ended["status"] not in ("SUCCEEDED", "FAILED") or (run.recovers and ended["status"] != "SUCCEEDED"):
        found.append(f"it ended {ended['status']} {error}")
    unrecordable = any(rule["service"] == "dynamodb" and "times" not in rule for rule in run.rules)
    if not unrecordable and (not record or record["status"] == "running"):
        found.append(f"the record is {record and record['status']}")
    about = f"Execution: {execution}"
    due = {"Info"} if ended["status"] == "SUCCEEDED" else {"Critical"}
    if harness.alerts.containing(about) != due:
        found.append(f"alerts went to {harness.alerts.containing(about)}, and {due} was due")
    for kind, left in harness.leftovers(lane).items():
        # What could not be deleted was told to a person, by name.
        if "Critical" not in harness.alerts.containing(left):
            found.append(f"the {kind} {left} is left and nobody was told")
    return found + harness.copies(record)


def mark(execution: str) -> str:
    """As in mends/invocations.py."""
    return hashlib.sha256(execution.encode()).hexdigest()[:12]


@pytest.fixture
def nothing_left():
    """Each run looks after its own leftovers; the tests below only read what was found."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name.replace(" ", "-"))
def test_it_ends_in_success_or_in_a_named_error_and_nothing_leaks(results, run):
    assert not results[run.name].findings, "\n".join(results[run.name].findings)


def needed(service: str, operation: str) -> list[tuple[str, str]]:
    """The permissions that an operation needs."""
    return PERMISSIONS.get((service, operation), [(service, operation)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_that_was_called_was_troubled(results, kind):
    run = results[f"each operation once {kind}"]
    if RECOVERS[kind]:
        assert set(OPERATIONS) - run.fired == set()
    reached = {pair for operation in run.fired for pair in needed(*operation)}
    assert {pair for pair in run.called if pair[0] in THROTTLED} - reached == set()


def test_no_function_panicked(stage, results):
    log = stage.cloud.log("ministack").read_text(errors="replace")
    assert [line for line in log.splitlines() if "panicked at" in line] == []

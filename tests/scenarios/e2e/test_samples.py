"""Every sample in events/, through the runtime interface emulator, with the answer that it must get.

The good samples of the functions are one road: a backup of the samples' own database, step by step, on which each
sample is run once where it has something true to answer. Answers are compared whole, with what varies redacted, to
expected-answers.json (`LIFEBOAT_WRITE_ANSWERS=1` writes it anew: review the difference). The bad ones are compared
to events/expected-errors.json. A machine's samples are what its first state hands to update_state.
"""

import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import experiments
import pytest
from emulator import Emulator
from stage import MASTER, until

ROOT = Path(__file__).resolve().parents[3]
EVENTS = ROOT / "events"
ERRORS = EVENTS / "expected-errors.json"
ANSWERS = Path(__file__).with_name("expected-answers.json")
WRITES = os.environ.get("LIFEBOAT_WRITE_ANSWERS") == "1"

FUNCTIONS = ("update_state", "create_snapshot", "validate_backup", "restore_database", "replicate_to_region",
             "plan_fleet", "health_check", "chaos_runner")
MACHINES = {"backup_orchestration": "backup", "prove_backup": "proof", "fleet_backup": "fleet",
            "chaos_experiment": "chaos"}
GOOD = sorted(path.relative_to(EVENTS).as_posix() for path in EVENTS.glob("*/*.json"))
BAD = sorted(path.relative_to(EVENTS).as_posix() for path in EVENTS.glob("*/bad/*.json"))

# What the samples say, as if it were the guide's account, and what takes its place on the local cloud.
ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012"
STARTED_AT = "2026-01-02T03:04:05Z"
BACKUP, PROOF, FLEET = "backup-0123456789abcdef", "proof-fedcba9876543210", "fleet-0123456789abcdef"
CHAOS, HASH, TARGET_OF_CHAOS = "chaos-0123456789abcdef", "0123456789abcdef" * 4, "manufacturing-notifier"
APPROVER, CODE, EXPIRY = "grace@example.com", "00" * 32, "2026-01-02T04:04:05Z"
DATABASE, REPLICA, SECRET = "prod-manufacturing-db", "prod-manufacturing-db-replica", "prod/manufacturing/lifeboat"
SNAPSHOT, TARGET = f"lifeboat-{DATABASE}-20260102-030405-01234567", "lifeboat-tmp-fedcba9876543210"

# Members whose value differs from run to run or from machine to machine: what is written for a value of this form.
# A value of another form is left as it is, and so differs from what is expected.
TIME = ("<time>", r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ABOVE_0 = ("<above 0>", r"[1-9]\d*")
REDACTED = {
    "at": TIME, "judgedAt": TIME, "comparedAt": TIME, "updatedAt": TIME, "snapshotCreateTime": TIME, "originalSnapshotCreateTime": TIME,
    "takenAt": TIME, "seconds": ABOVE_0, "seen": ABOVE_0, "eligible": ABOVE_0,
    "bytes": ABOVE_0, "bytesDone": ABOVE_0, "bytesTotal": ABOVE_0, "sound": ABOVE_0,
    "engineVersion": ("<17>", r"17\.\d+"),
    "port": ("<port>", r"[1-9]\d{3,4}"),
    "rpoSeconds": ("<below 100>", r"\d{1,2}"),
    "schemaFingerprint": ("<sha256>", r"[0-9a-f]{64}"),
    "snapshotXid": ("<xmin:xmax:running>", r"\d+:\d+:[\d,]*"),
    "timeToAvailableSeconds": ("<below 100>", r"\d{1,2}"),
    "durationSeconds": ("<seconds>", r"\d+"),
    "why": ("the faults stay until <time>", f"the faults stay until {TIME[1]}"),
    "planHash": ("<sha256>", r"[0-9a-f]{64}"),
    "planKey": ("<the operation's plan>", r"chaos/chaos-[0-9a-f]{16}/plan-[0-9a-f]{64}\.json"),
}


def load(sample: str):
    return json.loads((EVENTS / sample).read_text())


def replaced(payload, replacements: dict[str, str]):
    """A payload with texts in it replaced, also within strings."""
    text = json.dumps(payload)
    for old, new in replacements.items():
        text = text.replace(old, new)
    return json.loads(text)


class Road:
    """Runs samples and keeps what each was answered."""

    def __init__(self, stage):
        self.stage = stage
        self.emulators: dict[str, Emulator] = {}
        self.answers: dict[str, dict] = {}
        self.trouble: str | None = "the road was not begun"

    def invoke(self, function: str, payload):
        return self.emulators[function].invoke(payload)

    def good(self, payload):
        """An answer of update_state that must not be an error."""
        answer = self.invoke("update_state", payload)
        assert "errorType" not in answer, (payload, answer)
        return answer

    def payload(self, sample: str, replacements: dict[str, str] | None = None):
        """A sample as it is for this cloud."""
        return replaced(load(sample), {
            KEY: self.stage.keys["us-west-2"], f":{ACCOUNT}:": f":{self.stage.cloud.account}:",
            **(replacements or {})})

    def run(self, sample: str, replacements: dict[str, str] | None = None):
        """Runs a sample once."""
        return self.record(sample, sample.split("/")[0], self.payload(sample, replacements))

    def record(self, sample: str, function: str, payload):
        self.answers[sample] = answer = self.invoke(function, payload)
        return answer

    def health(self, sample: str):
        """Runs a sample of health_check. What it looked at is kept: how that is depends on what other tests have done,
        and is theirs to judge (test_health.py).
        """
        answer = self.run(sample)
        if "errorType" not in answer:
            told = sorted(answer["alert"]) if "alert" in answer else None
            self.answers[sample] = {"scope": answer["scope"], "components": sorted(answer["components"]),
                                    "members": sorted(answer), "alert": told}

    def poll(self, sample: str, replacements: dict[str, str] | None = None):
        """Runs a sample again and again, as a state machine does, until the answer is not `pending`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

        def ended():
            answer = self.run(sample, {STARTED_AT: now, **(replacements or {})})
            if answer.get("status") == "pending":
                assert answer["checkAgainInSeconds"] >= 1, answer
                return None
            return answer
        return until(f"{sample} is answered by more than `pending`", ended, seconds=120, pause=0.2)

    def machine(self, sample: str):
        """Begins an operation with a machine's sample, and ends it, so that its lock is free for the next."""
        machine, kind = sample.split("/")[0], MACHINES[sample.split("/")[0]]
        name = f"arn:aws:states:us-east-1:{self.stage.cloud.account}:execution:lifeboat-{machine.replace('_', '-')}"
        begin = {"execution": f"{name}:sample-{Path(sample).stem}", "startedAt": STARTED_AT, "kind": kind,
                 "request": self.payload(sample)}
        answer = self.record(sample, "update_state", {"begin": begin})
        if "errorType" not in answer:
            self.good({"fail": {**begin, "operationId": answer["operationId"], "error": "States.Timeout",
                                "cause": "the sample ends here"}})
        return answer


def walk(road: Road) -> None:
    """The good samples, each where it has something true to answer."""
    begun = road.run("update_state/begin-backup.json")
    backup = {BACKUP: begun["operationId"]}
    for case in ("lock", "progress", "checkpoint", "status", "succeed-backup"):
        road.run(f"update_state/{case}.json", backup)

    for case in ("describe", "describe-selector"):
        road.run(f"create_snapshot/{case}.json")
    # The local cloud has no read replicas: without the replica it is a whole frame, with it a named error (below).
    road.poll("validate_backup/frame.json", {f'"frameFrom": "{REPLICA}"': '"frameFrom": null'})
    road.run("validate_backup/ledger.json")
    # Of the operation that framed it.
    road.poll("validate_backup/compare.json", {CHAOS: BACKUP})
    road.run("create_snapshot/create.json")
    road.poll("create_snapshot/check.json")
    road.poll("validate_backup/observe.json")
    road.run("restore_database/start.json")
    road.poll("restore_database/check.json")
    # A proof's records are its operation's. These two are about the same restore and snapshot, but other proofs.
    own = f'"operationId": "{PROOF}"'
    road.poll("validate_backup/examine-without-frame.json", {own: '"operationId": "proof-0000000000000001"'})
    road.run("validate_backup/quick.json", {own: '"operationId": "proof-0000000000000002"'})
    road.poll("validate_backup/examine.json")
    road.run("validate_backup/judge.json")
    road.poll("restore_database/dispose.json")
    for case in ("label-unproven", "label-proven"):
        road.run(f"create_snapshot/{case}.json")
    for case in ("copy", "copy-under-the-configured-key"):
        road.poll(f"replicate_to_region/{case}.json")

    for case in ("all", "databases", "region-without-alerts", "scheduled-event", "rds-event"):
        road.health(f"health_check/{case}.json")
    road.run("plan_fleet/recovery-point-by-name.json")
    # Chosen among what was taken before the proof began, which is after these samples' snapshot.
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    road.run("plan_fleet/recovery-point-random.json", {STARTED_AT: now})
    for case in ("databases", "databases-by-name"):
        road.run(f"plan_fleet/{case}.json")
    # What Step Functions writes at the end of the Map.
    put = road.stage.cloud.client("s3").put_object
    for name, content in {
            "SUCCEEDED_0.json": [{"database": DATABASE, "status": "succeeded", "execution": "e-1", "snapshotId": SNAPSHOT,
                                  "level": "content", "startedAt": STARTED_AT, "endedAt": "2026-01-02T03:14:05Z"}],
            "manifest.json": {"ResultFiles": {"FAILED": [], "PENDING": [], "SUCCEEDED": [
                {"Key": f"operations/{FLEET}/results/sample/SUCCEEDED_0.json", "Size": 1}]}}}.items():
        put(Bucket=road.stage.outputs["MetadataBucketName"], Key=f"operations/{FLEET}/results/sample/{name}",
            Body=json.dumps(content).encode())
    road.run("plan_fleet/summarise.json")
    fleet = {FLEET: road.run("update_state/begin-fleet.json")["operationId"]}
    road.run("update_state/succeed-fleet.json", fleet)

    proof = {PROOF: road.run("update_state/begin-proof.json")["operationId"]}
    road.run("update_state/choose.json", proof)
    idle = road.good(road.payload("update_state/begin-proof.json", {"nightly-1": "nightly-2"}))
    road.run("update_state/succeed-nothing-to-prove.json", {PROOF: idle["operationId"]})
    road.run("update_state/succeed-proof.json", proof)
    # The first execution's operation has ended: what fails is another night's.
    second = {"nightly-1": "nightly-2"}
    failing = road.good(road.payload("update_state/begin-backup.json", second))
    road.run("update_state/fail.json", {**second, BACKUP: failing["operationId"]})
    road.run("update_state/fail-before-begin.json", {"nightly-1": "nightly-3"})
    try:
        road.run("update_state/emergency-stop.json")
    finally:
        road.run("update_state/lift-emergency-stop.json")
    walk_through_an_experiment(road)
    for machine in MACHINES:
        for sample in GOOD:
            if sample.startswith(f"{machine}/"):
                road.machine(sample)


def signed(operation: str, plan_hash: str, approver: str) -> dict:
    """An approval, by the script that people use (`make approve`)."""
    with tempfile.NamedTemporaryFile("w") as key:
        key.write(experiments.APPROVERS[approver].hex())
        key.flush()
        done = subprocess.run(
            [sys.executable, ROOT / "functions/chaos_runner/tools/approve.py", "--operation", operation, "--plan", plan_hash,
             "--approver", approver, "--key-file", key.name], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["approve"]["approval"]


def walk_through_an_experiment(road: Road) -> None:
    """A function is throttled, with two approvals, and the experiment is cancelled."""
    operation = road.run("update_state/begin-chaos.json")["operationId"]
    known = {CHAOS: operation}
    known[HASH] = road.run("chaos_runner/plan.json", known)["planHash"]
    road.run("chaos_runner/await-approval.json", known)
    approval = signed(operation, known[HASH], "grace")
    road.run("chaos_runner/approve.json", {
        **known, APPROVER: "grace", EXPIRY: approval["expiresAt"], CODE: approval["code"]})
    road.run("chaos_runner/status.json", known)
    # The last one wakes the state that waits. The sample's token is nobody's, which the answer says.
    approval = signed(operation, known[HASH], "edsger")
    assert road.invoke("chaos_runner", {"approve": {"operationId": operation, "approval": approval}})[
        "errorType"] == "Dr.OperationMissing"
    # It began after every emergency stop that there was.
    begun = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    road.run("chaos_runner/arm.json", {**known, "2026-11-20T09:00:00Z": begun})
    answer = road.run("chaos_runner/advance.json", known)
    if 1 <= answer.get("checkAgainInSeconds", 0) <= 10:
        answer["checkAgainInSeconds"] = "<1 to 10>"
    road.run("chaos_runner/cancel.json", known)
    until("the experiment is over", lambda: road.invoke(
        "chaos_runner", road.payload("chaos_runner/advance.json", known))["phase"] == "ended")
    road.run("chaos_runner/report.json", known)
    road.run("update_state/succeed-chaos.json", known)
    road.run("chaos_runner/unblock.json")
    # Of all experiments that there are: how many is for other tests to judge.
    road.answers["chaos_runner/watch.json"] = {"members": sorted(road.run("chaos_runner/watch.json"))}
    try:
        at_home(road.run("chaos_runner/emergency-stop.json"))
    finally:
        at_home(road.run("chaos_runner/lift-emergency-stop.json"))


def at_home(answer: dict) -> None:
    """Leaves in an emergency stop's answer what does not depend on other tests: they bring standbys and experiments."""
    answer["experiments"] = "<number>"
    for elsewhere in answer["regions"][1:]:
        elsewhere["status"] = "<the same, or no-installation>"


@pytest.fixture(scope="module", autouse=True)
def nothing_left(stage):
    """The road leads over all samples, so it is at its end that nothing may be left."""
    yield
    assert stage.leftovers() == []


@pytest.fixture(scope="module")
def road(stage, tmp_path_factory):
    """The whole road: the samples' database and secret, the functions in their emulators, all good samples run."""
    road = Road(stage)
    with contextlib.ExitStack() as running:
        running.callback(clear, stage, road)
        experiments.create_function(stage, TARGET_OF_CHAOS)
        source = stage.create_database(DATABASE, Tags=[{"Key": "lifeboat-backup", "Value": "nightly"}])
        source.script(ROOT / "tests/local-cloud/demo/schema.sql")
        source.script(ROOT / "tests/local-cloud/demo/data.sql", scale=1)
        secret = stage.cloud.client("secretsmanager").create_secret(
            Name=SECRET, SecretString=json.dumps({"username": MASTER, "password": source.password}))["ARN"]
        running.enter_context(readable(stage, secret))
        for function in FUNCTIONS:
            output = "".join(part.capitalize() for part in function.split("_")) + "FunctionName"
            road.emulators[function] = running.enter_context(
                Emulator(stage.cloud, stage.outputs[output], tmp_path_factory.mktemp(function)))
        try:
            walk(road)
            road.trouble = None
        except Exception as error:  # each test tells what became of its sample
            road.trouble = f"the road ended before it: {type(error).__name__}: {error}"
        yield road


@contextlib.contextmanager
def readable(stage, secret: str):
    """What the template's parameter SourceSecretArns gives: validate_backup's role may read this secret."""
    functions, iam = stage.cloud.client("lambda"), stage.cloud.client("iam")
    role = functions.get_function_configuration(
        FunctionName=stage.outputs["ValidateBackupFunctionName"])["Role"].rsplit("/", 1)[-1]
    iam.put_role_policy(RoleName=role, PolicyName="ReadsTheSamplesSecret", PolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret}]}))
    yield
    iam.delete_role_policy(RoleName=role, PolicyName="ReadsTheSamplesSecret")


def clear(stage, road: Road) -> None:
    """Takes away what the samples stood on; what the functions made only if they were kept from doing so."""
    rds, secrets = stage.cloud.client("rds"), stage.cloud.client("secretsmanager")
    with contextlib.suppress(stage.cloud.client("lambda").exceptions.ResourceNotFoundException):
        stage.cloud.client("lambda").delete_function(FunctionName=TARGET_OF_CHAOS)
    instances, names = [DATABASE], [SECRET]
    if road.trouble:
        instances, names = [DATABASE, TARGET], [SECRET, f"lifeboat/tmp/{TARGET[-16:]}"]
        stage.cloud.client("dynamodb").delete_item(
            TableName=stage.outputs["StateTableName"], Key={"operationId": {"S": f"lock#{DATABASE}"}})

    def left():
        found = rds.describe_db_instances()["DBInstances"]
        return [instance for instance in found if instance["DBInstanceIdentifier"] in instances]
    for instance in left():
        if instance["DBInstanceStatus"] != "deleting":
            rds.delete_db_instance(DBInstanceIdentifier=instance["DBInstanceIdentifier"], SkipFinalSnapshot=True)
    until("the samples' instances are gone", lambda: not left())
    for secret in secrets.list_secrets()["SecretList"]:
        if secret["Name"] in names:
            secrets.delete_secret(SecretId=secret["Name"], ForceDeleteWithoutRecovery=True)


def redacted(value, keys: dict[str, str]):
    """An answer with what varies replaced by what it is. A value that is not what its name says stays, and shows."""
    if isinstance(value, dict):
        return {name: redact_member(name, inner, keys) for name, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner, keys) for inner in value]
    if isinstance(value, str):
        for region, key in keys.items():
            value = value.replace(key, f"<key in {region}>")
    return value


def redact_member(name: str, value, keys: dict[str, str]):
    known = REDACTED.get(name)
    if known and value is not None and re.fullmatch(known[1], str(value)):
        return known[0]
    return redacted(value, keys)


@pytest.fixture(scope="module")
def expected():
    """The good answers; written anew where that was asked for."""
    answers = json.loads(ANSWERS.read_text()) if ANSWERS.is_file() else {}
    yield answers
    if WRITES:
        kept = {sample: answers[sample] for sample in sorted(answers) if sample in GOOD}
        ANSWERS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize("sample", GOOD)
def test_a_sample_gets_its_answer(road, expected, sample):
    if sample not in road.answers:
        pytest.fail(road.trouble or f"events/{sample} is run nowhere: add it to `walk` in {Path(__file__).name}, "
                    "where it has something true to answer")
    answer = redacted(road.answers[sample], road.stage.keys)
    assert "errorType" not in answer
    if WRITES:
        expected[sample] = answer
    assert sample in expected, (f"events/{sample} has no expected answer: run this with LIFEBOAT_WRITE_ANSWERS=1 "
                                f"and review what that adds to {ANSWERS.name}: {json.dumps(answer)}")
    assert answer == expected[sample], road.trouble or "not the answer that is expected"


@pytest.mark.parametrize("sample", BAD)
def test_a_bad_sample_is_refused_by_name_and_place(road, sample):
    errors = json.loads(ERRORS.read_text())
    assert sample in errors, (f"events/{sample} has no expected error: add its `error` (a name of docs/errors.md) and "
                              f"what the message `says` (the JSON path at fault) to events/{ERRORS.name}")
    assert errors[sample]["says"], f"events/{ERRORS.name}: say what the message about {sample} must name"
    function = sample.split("/")[0]
    answer = road.machine(sample) if function in MACHINES else road.record(sample, function, load(sample))
    assert set(answer) == {"errorType", "errorMessage"}, answer
    assert answer["errorType"] == errors[sample]["error"], answer
    assert errors[sample]["says"] in answer["errorMessage"], answer


def test_a_frame_from_a_replica_that_is_missing_is_refused(road):
    answer = road.invoke("validate_backup", load("validate_backup/frame.json"))
    assert answer["errorType"] == "Dr.DatabaseMissing" and REPLICA in answer["errorMessage"], answer


def test_nothing_is_expected_of_samples_that_are_not_there(expected):
    assert sorted(set(expected) - set(GOOD)) == []
    assert sorted(set(json.loads(ERRORS.read_text())) - set(BAD)) == []

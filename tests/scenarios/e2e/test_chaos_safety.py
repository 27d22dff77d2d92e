"""Every line of the safety of experiments, tried to be broken through the deployed stack with roles enforced: what is
refused is refused by name, in the execution, in the record and on a topic, and nothing is touched; what is ended early is
put back.

Most of it runs beside each other (`Beside`): the first test waits, and the others tell how it went.
"""

import concurrent.futures
import dataclasses
import datetime
import functools
import http.server
import ipaddress
import os
import re
import ssl
import subprocess
import threading
import time
import uuid

import botocore.exceptions
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deployment import ROOT, TOOLS
from experiments import (
    APPROVERS,
    Beside,
    Heard,
    Meanwhile,
    Subject,
    Subjects,
    Watching,
    approve,
    as_runner,
    calls_of,
    changes_tried,
    configured,
    create_function,
    experiment,
    journal,
    let_the_lease_run_out,
    operation_of,
    phase,
    report,
    tag,
    watch,
    watched_to_the_end,
)
from stage import MAY_BE_HARMED, Stage, together, until
from test_backups import QUIET, entered

TOGETHER = 10
# Longer than any of these experiments lasts: what ends one is never that its time is over.
LONG = {"duration": 600_000}
# For how long something is waited for that takes seconds on a machine with nothing else to do.
PATIENCE = 240
# Refused before anything is touched, and nothing is wrong with the installation: told on the warning topic.
WARNINGS = {"Dr.OperationInProgress", "Dr.EmergencyStopActive", "Dr.FreezeWindow", "Dr.ApprovalRequired",
            "Dr.PreCheckFailed", "Dr.BlastRadiusExceeded", "Dr.FaultImpossible", "Dr.TargetMissing",
            "Dr.TargetNotAllowed", "Dr.RollbackMissing"}
STANDBY, STANDBY_STACK = "eu-west-1", "lifeboat-safety"
beside = Beside()
HEARD_ON_CALL: list[dict] = []
ON_CALL = threading.Lock()
# Named by the standby's parameter; it carries no tag.
LISTED = "safety-listed"


@dataclasses.dataclass
class Scene:
    """The stage, and what all of these tests use."""

    stage: Stage
    subjects: Subjects
    heard: Heard
    meanwhile: Meanwhile
    # An instance without the tag that CHAOS_EC2_IDS names, and the hosts of CHAOS_PROBE_HOSTS.
    listed: str
    host: str
    # Named by what is refused, and never touched.
    machines: Subject
    group: Subject
    targets: Subject
    function: Subject
    database: Subject

    def start(self, request: dict, name: str | None = None) -> tuple[str, str]:
        """Execution and operation of an experiment that begins."""
        execution = self.stage.start("ChaosExperiment", request, name)
        return execution, operation_of(self.stage, execution)

    def observing(self, request: dict, name: str | None = None) -> tuple[str, str]:
        """The same, as soon as its faults are in."""
        execution, operation = self.start(request, name)
        until(f"the faults of {request['id']} are in", lambda: phase(self.stage, operation) == "observing", PATIENCE,
              pause=0.2)
        return execution, operation

    def asking(self, request: dict, name: str | None = None) -> tuple[str, str, str]:
        """The same, as soon as it waits for approvals; and the hash of its plan."""
        execution, operation = self.start(request, name)
        until(f"{request['id']} asks", lambda: phase(self.stage, operation) == "awaiting-approval", PATIENCE,
              pause=0.2)
        return execution, operation, journal(self.stage, operation)["planHash"]

    def refused(self, request, name: str, mentions: str = "", execution: str | None = None) -> dict:
        """An experiment that must be refused, by this name, before anything is touched; returns its record."""
        execution = execution or self.stage.start("ChaosExperiment", request)
        ended = self.stage.finish(execution)
        assert (ended["status"], ended.get("error")) == ("FAILED", name), ended
        record = self.stage.operation(execution)
        assert record["status"] == "failed" and record["error"]["name"] == name, record
        assert mentions in record["error"]["message"], record["error"]
        alert = self.heard.wait(execution)
        assert name in alert["subject"] and mentions in alert["message"], alert
        assert alert["topic"] == ("Warning" if name in WARNINGS else "Critical"), alert
        assert "Nothing was touched." in alert["message"], alert
        self.untouched(execution)
        return record

    def untouched(self, execution: str) -> None:
        """Nothing was changed by an execution, nor tried to be."""
        assert changes_tried(self.stage, execution) == []

    def ended(self, execution: str, status: str, reason: str, seconds: float = PATIENCE) -> dict:
        """How an experiment must end, everything put back; returns what it answers."""
        ended = self.stage.finish(execution, seconds)
        assert ended["status"] == "SUCCEEDED", ended
        output = ended["output"]
        assert (output["status"], output["reason"]["kind"]) == (status, reason), output
        record = self.stage.operation(execution)
        assert record["status"] == ("succeeded" if status == "completed" else "partial"), record
        assert record["result"]["status"] == status, record
        assert output["commands"] == []
        alert = self.heard.wait(execution)
        assert alert["topic"] == ("Info" if status == "completed" else "Warning"), alert
        assert status in alert["subject"], alert
        return output

    def stop(self, *ids: str, **more) -> dict:
        """A request that stops instances."""
        return experiment("infrastructure", {"ec2Instances": list(ids)}, [{"fault": "ec2-stop"}], **more)

    def backup(self, database: str, name: str | None = None) -> str:
        return self.stage.start("BackupOrchestration", {
            "database": database, "validation": {"depth": "quick"}, **QUIET}, name)


def named() -> str:
    """A name of an execution."""
    return f"safety-{uuid.uuid4().hex[:12]}"


def plan_of(scene, request: dict, number: int = 0) -> dict:
    """The whole plan that `chaos_runner` makes of a request now."""
    operation = f"chaos-{number:016x}"
    answer, error = scene.stage.invoke("ChaosRunner", {"plan": {"operationId": operation, "request": request}})
    assert error is None, error
    return scene.stage.report(answer["planKey"])


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A server that answers in TLS, `/well` with 200 and everything else with 500: its host, and the file of its
    authority."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802  (the name that is looked for)
            self.send_response(200 if self.path == "/well" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass
    place = tmp_path_factory.mktemp("probed")
    certify(place)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", place / "ca.pem"
    server.shutdown()
    server.server_close()


def certify(place) -> None:
    """An authority, `ca.pem`, and a key with its certificate for 127.0.0.1, `server.pem`."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    names = {name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in keys}
    texts = {}
    for name, authority in (("ca", True), ("server", False)):
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        texts[name] = (
            x509.CertificateBuilder().subject_name(names[name]).issuer_name(names["ca"]).public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(keys["ca"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key = keys["server"].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption())
    (place / "ca.pem").write_bytes(texts["ca"])
    (place / "server.pem").write_bytes(key + texts["server"])


@pytest.fixture(scope="module")
def scene(stage, probed):
    subjects = Subjects(stage)
    host, ca = probed
    *shared, [listed] = together(
        *(functools.partial(subjects.make, fault) for fault in (
            "ec2-stop", "asg-suspend", "targets-deregister", "function-throttle", "rds-reboot")),
        functools.partial(stage.create_instances, "a", tagged=False))
    # What these wait for takes its time: nobody gives up meanwhile.
    settings = {"CHAOS_APPROVAL_MINUTES": "60", "CHAOS_EC2_IDS": listed, "CHAOS_PROBE_HOSTS": host,
                "CHAOS_PROBE_CA_FILE": str(ca)}
    with Meanwhile(stage) as meanwhile, configured(stage, **settings):
        yield Scene(stage, subjects, Heard(stage), meanwhile, listed, host, *shared)
        stage.cloud.control("faults", method="DELETE")
    assert meanwhile.raised == []


@pytest.fixture(autouse=True)
def nothing_left():
    """Instead of after each test, it is looked at after all of them: they run beside each other."""


@pytest.fixture(scope="module")
def came(request, scene):
    """Every scenario that is asked for, as a future; and the standby, which has to be there later."""
    shared = [scene.machines, scene.group, scene.targets, scene.function, scene.database]
    everything = Subject("shared", "regional", {}, [], lambda: [subject.look() for subject in shared])
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool, concurrent.futures.ThreadPoolExecutor(1) as aside:
        later = {"standby": aside.submit(stand_by, scene)}
        with Watching(everything, pause=0.5) as watching:
            running = beside.run(pool, request, scene)
            asked = {item.callspec.params.get("case") for item in request.session.items
                     if item.path == request.path and hasattr(item, "callspec")}
            running |= {name: pool.submit(refusal, scene, name) for name in REFUSED if name in asked}
            running |= {name: pool.submit(the_tag_counts, scene, name) for name in TAGGED if name in asked}
            yield {**running, **later, "watching": watching}


@pytest.fixture(scope="module")
def alone(came):
    """Nothing runs beside what comes now."""
    concurrent.futures.wait([future for name, future in came.items() if name != "watching"])
    return came


# What is refused

def probe(name: str, **more) -> dict:
    return {"probe": name, **more}


def of(subject: str, **more):
    """A request about one of the shared subjects, spoiled."""
    return lambda scene: {**getattr(scene, subject).experiment(**{name: more[name] for name in more if name == "parameters"}),
                          **{name: more[name] for name in more if name != "parameters"}}


def without(*names: str):
    def make(scene):
        request = scene.function.experiment()
        for name in names:
            del request[name]
        return request
    return make


def parameters(**more):
    return of("function", parameters=more)


def about_database(*probes, where="preChecks"):
    def make(scene):
        name = scene.database.targets["rdsInstances"][0]
        given = [{**each, "database": name} if "database" in each else each for each in probes]
        return scene.database.experiment(**{where: given})
    return make


def alarmed(state: str, where="preChecks"):
    def make(scene):
        alarm = f"safety-{uuid.uuid4().hex[:8]}"
        scene.stage.create_alarm(alarm, state)
        return scene.function.experiment(**{where: [probe("alarm-is-ok", alarm=alarm)]})
    return make


def asked_at(url: str):
    return lambda scene: scene.function.experiment(preChecks=[probe("http", url=url.format(host=scene.host), withinMilliseconds=10_000)])


def about_a_member(scene):
    """A stop of an instance whose group would replace it."""
    group = scene.group.targets["autoScalingGroups"][0]
    return scene.stop(sorted(scene.stage.in_service(group))[0])


def open_group(scene) -> str:
    """A security group as it is made: it lets everything out."""
    return scene.stage.cloud.client("ec2").create_security_group(
        GroupName=f"open-{uuid.uuid4().hex[:6]}", Description="For a test")["GroupId"]


def untagged(scene) -> str:
    """A database that nobody gave free for experiments."""
    return scene.stage.create_database(f"plain-{uuid.uuid4().hex[:6]}").name


# Each: the request, the error's name, and a word of its message.
REFUSED = {
    "an unknown fault": (of("function", faults=[{"fault": "meteor"}]), "Dr.InvalidInput", "faults[0]"),
    "a fault with an unknown field": (
        of("function", faults=[{"fault": "function-throttle", "hard": True}]), "Dr.InvalidInput", "faults[0]"),
    "a fault of another family": (of("function", faults=[{"fault": "ec2-stop"}]), "Dr.InvalidInput", "no fault"),
    "an unknown field": (of("function", force=True), "Dr.InvalidInput", "force"),
    "an unknown parameter": (parameters(force=True), "Dr.InvalidInput", "force"),
    "an unknown family": (of("function", type="human"), "Dr.InvalidInput", "`type`"),
    "no id": (without("id"), "Dr.InvalidInput", "id"),
    "no experiment": (lambda scene: ["all"], "Dr.InvalidInput", ""),
    "zero targets": (of("function", targetResources={}), "Dr.InvalidInput", "targetResources"),
    "an empty list of targets": (of("function", targetResources={"functions": []}), "Dr.InvalidInput", "targetResources"),
    "a target that no fault happens to": (
        of("function", targetResources={"functions": ["some"], "ec2Instances": ["i-1"]}), "Dr.InvalidInput", "no fault"),
    "a target that is an option": (
        of("function", targetResources={"functions": ["--all"]}), "Dr.InvalidInput", "cannot be one"),
    "an intensity of 0": (parameters(intensity=0), "Dr.InvalidInput", "intensity"),
    "an intensity of 101": (parameters(intensity=101), "Dr.InvalidInput", "intensity"),
    "a duration beyond the limit": (parameters(duration=3_600_001), "Dr.InvalidInput", "duration"),
    "a duration that is too short": (parameters(duration=9_999), "Dr.InvalidInput", "duration"),
    "more approvals than there can be": (parameters(approvals=6), "Dr.InvalidInput", "approvals"),
    "a channel that is not configured": (parameters(notificationChannels=["all"]), "Dr.InvalidInput", "CHAOS_CHANNELS"),
    "no rollback plan": (without("rollbackPlan"), "Dr.RollbackMissing", "rollbackPlan"),
    "an empty rollback plan": (of("function", rollbackPlan=[]), "Dr.RollbackMissing", "rollbackPlan"),
    "a rollback that is switched off": (parameters(automaticRollback=False), "Dr.RollbackMissing", "automaticRollback"),
    "a rollback that is code": (
        of("function", rollbackPlan=[{"action": "shell", "run": "id"}]), "Dr.InvalidInput", "rollbackPlan[0]"),
    "another Region than those of the stack": (
        of("function", targetResources={"functions": ["some"], "regions": ["ap-south-1"]}), "Dr.RegionUnknown", "ap-south-1"),
    "a target that does not exist": (lambda scene: scene.stop("i-00000000000000000"), "Dr.TargetMissing", "i-0000000000"),
    "a function that does not exist": (
        of("function", targetResources={"functions": ["nobody"]}), "Dr.TargetMissing", "nobody"),
    "a function of the stack itself": (
        lambda scene: experiment("application", {"functions": [scene.stage.outputs["ChaosRunnerFunctionName"]]},
                                 [{"fault": "function-throttle"}]), "Dr.TargetNotAllowed", "this stack's functions"),
    "an isolation by a group that lets something through": (
        lambda scene: experiment("network", scene.machines.targets, [
            {"fault": "security-group-isolate", "securityGroup": open_group(scene)}]), "Dr.FaultImpossible", "1 rule"),
    "an isolation by a group that does not exist": (
        lambda scene: experiment("network", scene.machines.targets, [
            {"fault": "security-group-isolate", "securityGroup": "sg-00000000000000000"}]), "Dr.TargetMissing", "sg-000"),
    "the data of a database without the tag": (
        lambda scene: scene.function.experiment(dataCheck={"database": untagged(scene)}), "Dr.TargetNotAllowed", "dr:chaos"),
    "a ledger in a database without the tag": (
        lambda scene: scene.function.experiment(postChecks=[probe("data-intact", database=untagged(scene))]),
        "Dr.TargetNotAllowed", "dr:chaos"),
    "the data of a database elsewhere": (
        lambda scene: experiment("application", {"functions": ["some"], "regions": ["us-west-2"]},
                                 [{"fault": "function-throttle"}], dataCheck={"database": "some"}),
        "Dr.InvalidInput", "dataCheck"),
    "data that is read without bounds": (
        of("function", dataCheck={"database": "some", "connections": 9}), "Dr.InvalidInput", "dataCheck.connections"),
    "an unreachable Region where that is not used": (
        lambda scene: experiment("regional", {"regions": ["us-west-2"]}, [{"fault": "region-unreachable"}]),
        "Dr.TargetNotAllowed", "does not use it"),
    "a stop of a group's member": (about_a_member, "Dr.FaultImpossible", "terminate"),
    "the end of a machine that nothing replaces": (
        lambda scene: {**scene.machines.experiment(), "faults": [{"fault": "ec2-terminate"}]},
        "Dr.FaultImpossible", "nothing would replace it"),
    "a failover without a standby": (
        lambda scene: {**scene.database.experiment(), "faults": [{"fault": "rds-failover"}]},
        "Dr.FaultImpossible", "standby"),
    "fewer healthy ones than must stay": (
        of("machines", parameters={"minimumHealthy": 1}), "Dr.BlastRadiusExceeded", "1 must stay"),
    "all of a pool, without a word about it": (
        of("machines", parameters={"minimumHealthy": None}), "Dr.BlastRadiusExceeded", "1 must stay"),
    "a group that would be too small": (
        lambda scene: {**scene.group.experiment(parameters={"minimumHealthy": 3}),
                       "faults": [{"fault": "asg-capacity", "desired": 2}]}, "Dr.BlastRadiusExceeded", "3 must stay"),
    "an alarm in ALARM": (alarmed("ALARM"), "Dr.PreCheckFailed", "ALARM"),
    "an alarm that knows nothing": (alarmed("INSUFFICIENT_DATA"), "Dr.PreCheckFailed", "INSUFFICIENT_DATA"),
    "an alarm that does not exist": (
        of("function", preChecks=[probe("alarm-is-ok", alarm="nobodys")]), "Dr.PreCheckFailed", "no such alarm"),
    "a stop condition that holds already": (alarmed("ALARM", "stopConditions"), "Dr.PreCheckFailed", "stop condition"),
    "a steady state that does not hold": (alarmed("ALARM", "steadyState"), "Dr.PreCheckFailed", "steady state"),
    "no backups": (
        about_database(probe("backups-exist", database="", withinHours=12)), "Dr.PreCheckFailed", "no proven backup"),
    "an unproven newest snapshot": (
        about_database(probe("latest-snapshot-proven", database="")), "Dr.PreCheckFailed", "no backup"),
    "a lag without a replica": (
        about_database(probe("replication-lag-below", database="", seconds=60)), "Dr.PreCheckFailed", "no replica"),
    "data of a database that is missing": (
        of("function", preChecks=[probe("data-intact", database="nobodys-db")]), "Dr.PreCheckFailed", "data-intact"),
    "a server that is not well": (asked_at("https://{host}/ill"), "Dr.PreCheckFailed", "it answered 500"),
    "a host that may not be probed": (asked_at("https://169.254.169.254/"), "Dr.InvalidInput", "CHAOS_PROBE_HOSTS"),
    "a host behind another one's name": (asked_at("https://{host}@evil.example/"), "Dr.InvalidInput", "url"),
    "a probe without TLS": (asked_at("http://{host}/well"), "Dr.InvalidInput", "https"),
    "a probe that is code": (of("function", preChecks=[{"probe": "shell", "run": "id"}]), "Dr.InvalidInput", "preChecks[0]"),
    "a critical one of nobody": (of("function", severity="critical", requestedBy=None), "Dr.ApprovalRequired", "requestedBy"),
    "a regional one of nobody": (
        of("function", type="regional", requestedBy=None), "Dr.ApprovalRequired", "requestedBy"),
    "one that asks for an approval, of nobody": (
        of("function", requestedBy=None, parameters={"approvalRequired": True}), "Dr.ApprovalRequired", "requestedBy"),
}


def refusal(scene, case: str) -> None:
    make, name, mentions = REFUSED[case]
    scene.refused(make(scene), name, mentions)


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_name_and_nothing_is_touched(came, case):
    came[case].result()


# Whose resources

def cluster(scene) -> Subject:
    return scene.subjects.make("cluster-stop")


# A subject of each kind, and a call that harms it.
TAGGED = {
    "a DB instance": ("rds-reboot", "rds", "reboot_db_instance", lambda name: {"DBInstanceIdentifier": name}),
    "a cluster": ("cluster-stop", "rds", "stop_db_cluster", lambda name: {"DBClusterIdentifier": name}),
    "an instance": ("ec2-stop", "ec2", "stop_instances", lambda name: {"InstanceIds": [name]}),
    "a scaling group": ("asg-suspend", "autoscaling", "suspend_processes", lambda name: {"AutoScalingGroupName": name}),
    "a target group": ("targets-deregister", "elbv2", "deregister_targets",
                       lambda name: {"TargetGroupArn": name, "Targets": [{"Id": "i-00000000000000000"}]}),
    "a function": ("function-throttle", "lambda", "put_function_concurrency",
                   lambda name: {"FunctionName": name, "ReservedConcurrentExecutions": 0}),
}


def denied(call, **parameters) -> bool:
    """Whether a call is refused for want of permission; what else goes wrong is raised."""
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
            return True
        raise
    return False


def the_tag_counts(scene, case: str) -> None:
    """Without the tag, or with another value, the code refuses and so does IAM; taken off when the code has looked for
    the last time, it is IAM alone."""
    fault, service, call, arguments = TAGGED[case]
    subject = scene.subjects.make(fault)
    [names] = subject.targets.values()
    harm = functools.partial(getattr(as_runner(scene.stage, service), call), **arguments(names[0]))
    for value in ("Allowed", "yes", None):
        tag(scene.stage, subject, value)
        assert denied(harm)
    scene.refused(subject.experiment(), "Dr.TargetNotAllowed", "dr:chaos = allowed")
    tag(scene.stage, subject, "Allowed")
    scene.refused(subject.experiment(), "Dr.TargetNotAllowed", "dr:chaos = allowed")
    tag(scene.stage, subject, MAY_BE_HARMED["Value"])
    name = named()
    scene.meanwhile.when(name, "InjectFaults", functools.partial(tag, scene.stage, subject, None))
    execution, operation = scene.start(subject.experiment(parameters=LONG), name)
    output = scene.ended(execution, "rolled-back", "injection-failed")
    assert "ccess" in output["reason"]["detail"] or "uthorized" in output["reason"]["detail"], output["reason"]
    assert subject.call in changes_tried(scene.stage, execution), "it was not even tried"
    assert subject.as_recorded(), (subject.look(), subject.recorded)


@pytest.mark.parametrize("case", TAGGED)
def test_code_and_iam_ask_for_the_tag(came, case):
    came[case].result()


@beside
def test_an_untagged_one_among_tagged_ones_keeps_all_from_being_touched(scene):
    [bare] = scene.stage.create_instances("a", tagged=False)
    with Watching(Subject("bare", "infrastructure", {}, [], lambda: scene.stage.instance(bare)["State"]["Name"])) as bare_one:
        scene.refused(scene.stop(*scene.machines.targets["ec2Instances"], bare), "Dr.TargetNotAllowed", bare)
    assert bare_one.differing() == []


@beside
def test_what_is_listed_without_the_tag_is_allowed_by_the_code_and_refused_by_iam(scene):
    """The parameter ChaosEc2Ids gives both; here only the function was told."""
    execution, _ = scene.start(scene.stop(scene.listed, parameters=LONG))
    output = scene.ended(execution, "rolled-back", "injection-failed")
    assert "ec2:StopInstances" in changes_tried(scene.stage, execution)
    assert scene.stage.instance(scene.listed)["State"]["Name"] == "running", output


@beside
def test_nobody_terminates_an_instance_with_the_runners_role(scene):
    """Only members of a tagged group, by way of the group."""
    [name] = scene.machines.targets["ec2Instances"][:1]
    assert denied(as_runner(scene.stage, "ec2").terminate_instances, InstanceIds=[name])
    scaling = as_runner(scene.stage, "autoscaling")
    bare = scene.stage.create_scaling_group(f"bare-{uuid.uuid4().hex[:6]}", 1, tagged=False)
    [member] = scene.stage.in_service(bare)
    assert denied(scaling.terminate_instance_in_auto_scaling_group, InstanceId=member, ShouldDecrementDesiredCapacity=False)
    assert scene.stage.in_service(bare) == {member}


@beside
def test_only_what_is_named_is_touched(scene):
    """Its twin carries the same tag."""
    subject = scene.subjects.make("ec2-stop")
    named_one, twin = subject.targets["ec2Instances"]
    apart = Subject("twin", "infrastructure", {}, [], lambda: scene.stage.instance(twin)["State"]["Name"])
    with Watching(subject) as both, Watching(apart) as watching:
        execution, operation = scene.start(scene.stop(named_one))
        scene.ended(execution, "completed", "completed")
    assert both.differing() and watching.differing() == []
    touched = [entry["step"]["resource"]["id"] for entry in report(scene.stage, operation)["journal"]["entries"]]
    assert touched == [named_one]


# How many

@beside
def test_half_are_chosen_by_a_seed_and_the_others_are_watched(scene):
    ids = sorted(scene.stage.create_instances("a", "a", "b", "b"))

    def states():
        return {one: scene.stage.instance(one)["State"]["Name"] for one in ids}

    def chosen(seed, number=0):
        more = {"intensity": 50, "minimumHealthy": 2, **LONG, **({"seed": seed} if seed else {})}
        plan = plan_of(scene, scene.stop(*ids, parameters=more), number)
        assert plan["seed"] == (seed or f"chaos-{number:016x}")
        return tuple(sorted(step["resource"]["id"] for step in plan["steps"]))
    by_seed = {seed: chosen(seed) for seed in ("one", "two", "three", "four", "five", "six")}
    assert {len(each) for each in by_seed.values()} == {2}
    assert len(set(by_seed.values())) > 1, "the seed decides nothing"
    assert chosen("one", 7) == by_seed["one"], "the same seed chooses the same, whatever the operation"
    assert len({chosen(None, number) for number in range(6)}) > 1, "without a seed it is the operation's"

    request = scene.stop(*ids, parameters={"intensity": 50, "minimumHealthy": 2, "seed": "one", **LONG})
    execution, operation = scene.observing(request)
    assert {one for one, state in states().items() if state != "running"} == set(by_seed["one"])
    # Somebody stops a third one: fewer than two are healthy.
    third = next(one for one in ids if one not in by_seed["one"])
    scene.stage.cloud.client("ec2").stop_instances(InstanceIds=[third])
    output = scene.ended(execution, "rolled-back", "too-few-healthy")
    assert "1 of" in output["reason"]["detail"]
    # What it did itself is undone, and no more.
    assert states() == {one: "stopped" if one == third else "running" for one in ids}


# Approvals

def asks(scene, **more) -> tuple[Subject, dict]:
    """A function of its own, and a request about it that needs an approval."""
    subject = scene.subjects.make("function-throttle")
    return subject, subject.experiment(severity="critical", **more)


@beside
def test_without_an_approval_it_waits_and_gives_up_by_name(scene):
    subject, request = asks(scene)
    name = named()
    with Watching(subject) as watching:
        execution, operation, plan_hash = scene.asking(request, name)
        assert entered(scene.stage, execution)[-1] == "AwaitApproval"
        asked = scene.heard.wait(operation, plan_hash)
        assert asked["topic"] == "Warning" and "waits for 1 approval" in asked["subject"]
        assert scene.stage.cloud.client("stepfunctions").describe_execution(executionArn=execution)["status"] == "RUNNING"
        scene.untouched(execution)
        # Another one, for which nobody approves in time.
        late = named()
        scene.stage.cloud.order("orders", {"execution": late, "state": "AwaitApproval",
                                           "effect": {"lose": {"error": "States.Timeout"}}})
        other = scene.stage.start("ChaosExperiment", {**request, "id": late}, late)
        scene.refused(None, "Dr.ApprovalRequired", "Nobody approved", execution=other)
        scene.stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    assert watching.differing() == []


@beside
def test_an_approval_that_does_not_count_is_refused_at_once(scene):
    """Forged, expired, for too long, for another plan, of the requester, of a stranger: by name, and not kept."""
    subject, request = asks(scene, requestedBy="Ada")
    with Watching(subject) as watching:
        execution, operation, plan_hash = scene.asking(request)
        give = functools.partial(approve, scene.stage, operation)
        key = APPROVERS
        expiry = "2026-01-01T00:00:00Z"
        other = scene.subjects.make("function-throttle").experiment(severity="critical")
        elsewhere, other_operation, _ = scene.asking(other)
        cases = [
            (give(plan_hash, "grace", b"x" * 32), "code is not"),
            (give(plan_hash, "grace", key["edsger"]), "code is not"),
            (give(plan_hash, "mallory", key["grace"]), "code is not"),
            (give(plan_hash, "grace", key["grace"], code=""), "code is not"),
            (give(plan_hash, "grace", key["grace"], code="nothing"), "code is not"),
            (give(plan_hash, "grace", key["grace"], expiresAt=expiry), "code is not"),
            (give(plan_hash, "grace", key["grace"], planHash="0" * 64), "code is not"),
            (approve_as(scene, other_operation, operation, plan_hash), "code is not"),
            (give(plan_hash, "grace", key["grace"], minutes=-1), "expired"),
            (give(plan_hash, "grace", key["grace"], minutes=24 * 60 + 5), "24 hours"),
            (give("0" * 64, "grace", key["grace"]), "another plan"),
            (give(plan_hash, "ada", key["ada"]), "the requester"),
            (give(plan_hash, "ADA", key["ada"]), "the requester"),
            (give(plan_hash, " Ada ", key["ada"]), "the requester"),
        ]
        for (answer, error), why in cases:
            assert answer is None and error["errorType"] == "Dr.ApprovalRequired", (why, answer, error)
            assert why in error["errorMessage"], (why, error)
        answer, error = give(plan_hash, "grace", key["grace"], unknown=True)
        assert answer is None and error["errorType"] == "Dr.InvalidInput", error
        assert journal(scene.stage, operation)["approvedBy"] == []
        scene.untouched(execution)
        for each in (execution, elsewhere):
            scene.stage.cloud.client("stepfunctions").stop_execution(executionArn=each)
    assert watching.differing() == []
    # Nobody waits any more: also a good one does nothing.
    answer, error = give(plan_hash, "grace", key["grace"])
    assert answer is None and error["errorType"] == "Dr.OperationMissing", (answer, error)
    scene.untouched(execution)


def approve_as(scene, signed: str, operation: str, plan_hash: str):
    """An approval that was signed for one operation, given to another."""
    real = scene.stage

    class Diverted:
        @staticmethod
        def invoke(function, payload):
            payload["approve"]["operationId"] = operation
            return real.invoke(function, payload)
    return approve(Diverted, signed, plan_hash, "grace", APPROVERS["grace"])


@beside
def test_two_people_are_two_people(scene):
    subject, request = asks(scene, parameters={"approvals": 2})
    execution, operation, plan_hash = scene.asking(request)
    give = functools.partial(approve, scene.stage, operation, plan_hash)
    for approver, minutes in (("grace", 30), ("grace", 31), ("GRACE", 30)):
        answer, error = give(approver, APPROVERS["grace"], minutes)
        assert error is None and answer == {"counted": 1, "needed": 2, "approved": False}, (answer, error)
    assert entered(scene.stage, execution)[-1] == "AwaitApproval" and subject.as_recorded()
    answer, error = give("edsger", APPROVERS["edsger"])
    assert error is None and answer == {"counted": 2, "needed": 2, "approved": True}, (answer, error)
    scene.ended(execution, "completed", "completed")
    assert journal(scene.stage, operation)["approvedBy"] == ["edsger", "grace"]
    assert subject.as_recorded()


def changed_for_good(subject: Subject) -> dict:
    """What it looks like when it has become another one, and stays so."""
    looks = []

    def rests():
        looks.append(subject.look())
        return looks[-1] != subject.recorded and looks[-3:] == [looks[-1]] * 3
    until("the change is over", rests, pause=0.7)
    return looks[-1]


def changed_plan(scene, subject: Subject, change) -> None:
    """What was approved is not what is there when it begins."""
    request = subject.experiment(severity="critical")
    execution, operation, plan_hash = scene.asking(request)
    change()
    subject.recorded = changed_for_good(subject)
    answer, error = approve(scene.stage, operation, plan_hash, "grace", APPROVERS["grace"])
    assert error is None and answer["approved"], (answer, error)
    scene.refused(None, "Dr.ApprovalRequired", "it is for another plan", execution=execution)
    assert subject.as_recorded()


@beside
def test_an_approval_does_not_hold_for_a_function_that_changed(scene):
    subject = scene.subjects.make("function-throttle")
    [name] = subject.targets["functions"]
    changed_plan(scene, subject, lambda: scene.stage.cloud.client("lambda").put_function_concurrency(
        FunctionName=name, ReservedConcurrentExecutions=9))


@beside
def test_an_approval_does_not_hold_for_a_target_that_was_added(scene):
    subject = scene.subjects.make("targets-deregister")
    [arn], [added] = subject.targets["targetGroups"], scene.stage.create_instances("b")
    changed_plan(scene, subject, lambda: scene.stage.cloud.client("elbv2").register_targets(
        TargetGroupArn=arn, Targets=[{"Id": added}]))


@beside
def test_an_approval_does_not_hold_for_a_group_of_another_size(scene):
    subject = scene.subjects.make("asg-suspend")
    [name] = subject.targets["autoScalingGroups"]
    changed_plan(scene, subject, lambda: scene.stage.cloud.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=name, DesiredCapacity=4))


# Before and while it runs

@beside
def test_checks_that_pass_let_it_begin(scene):
    """The neighbours of what is refused."""
    alarm = f"well-{uuid.uuid4().hex[:8]}"
    scene.stage.create_alarm(alarm)
    subject = scene.subjects.make("function-throttle")
    well = [probe("alarm-is-ok", alarm=alarm), probe("http", url=f"https://{scene.host}/well", withinMilliseconds=10_000)]
    execution, operation = scene.start(subject.experiment(
        preChecks=well, steadyState=well, stopConditions=well, postChecks=well))
    scene.ended(execution, "completed", "completed")
    whole = report(scene.stage, operation)
    assert [finding["verdict"] for finding in whole["before"] + whole["after"]] == ["passed"] * 6
    assert subject.as_recorded()


@beside
def test_checks_are_made_again_when_it_begins(scene):
    """Between the plan and its beginning there may be a day, until it is approved."""
    alarm = f"later-{uuid.uuid4().hex[:8]}"
    scene.stage.create_alarm(alarm)
    well = [probe("alarm-is-ok", alarm=alarm)]
    waiting = []
    for where in ("preChecks", "steadyState", "stopConditions"):
        subject, request = asks(scene, **{where: well})
        waiting.append((subject, *scene.asking(request)))
    scene.stage.set_alarm(alarm, "ALARM")
    for subject, execution, operation, plan_hash in waiting:
        answer, error = approve(scene.stage, operation, plan_hash, "grace", APPROVERS["grace"])
        assert error is None and answer["approved"], (answer, error)
        scene.refused(None, "Dr.PreCheckFailed", "ALARM", execution=execution)
        assert subject.as_recorded()


@beside
def test_an_alarm_ends_it_early(scene):
    alarm = f"ends-{uuid.uuid4().hex[:8]}"
    scene.stage.create_alarm(alarm)
    subject = scene.subjects.make("ec2-stop")
    execution, operation = scene.observing(subject.experiment(
        parameters=LONG, stopConditions=[probe("alarm-is-ok", alarm=alarm)]))
    assert not subject.as_recorded()
    scene.stage.set_alarm(alarm, "ALARM")
    output = scene.ended(execution, "rolled-back", "stop-condition")
    assert "ALARM" in output["reason"]["detail"] and output["rollbackExecuted"]
    assert subject.as_recorded()


@beside
def test_a_dry_run_says_everything_and_changes_nothing(scene):
    """Also when nobody says that it is one. Not even a beat is written."""
    database = scene.stage.create_database(f"dry-{uuid.uuid4().hex[:6]}", Tags=[MAY_BE_HARMED])
    intact = [probe("data-intact", database=database.name)]
    request = experiment("database", {"rdsInstances": [database.name]}, [{"fault": "rds-stop"}], preChecks=intact,
                         steadyState=intact, severity="critical")
    del request["dryRun"]
    for given in (request, {**request, "dryRun": True}):
        execution, operation = scene.start(given)
        ended = scene.stage.finish(execution)
        assert ended["status"] == "SUCCEEDED", ended
        plan = ended["output"]
        assert plan["dryRun"] and plan["ready"] and plan["obstacles"] == [], plan
        assert (plan["steps"], plan["durationSeconds"], plan["approvals"]) == (1, 10, 1)
        assert plan["worstCaseSeconds"] > plan["durationSeconds"] and len(plan["planHash"]) == 64
        assert plan["blastRadius"] == f"1 of the kind DB instance in {scene.stage.cloud.region}"
        assert "rds stop-db-instance" in plan["lines"][0] and "undone by `aws" in plan["lines"][0], plan["lines"]
        assert scene.stage.report(plan["planKey"])["steps"][0]["resource"]["id"] == database.name
        record = scene.stage.operation(execution)
        assert record["status"] == "succeeded" and record["result"]["planHash"] == plan["planHash"]
        scene.untouched(execution)
        assert phase(scene.stage, operation) is None, "it has a journal"
    assert database.sql("select to_regclass('lifeboat.heartbeat')") == ""
    assert scene.subjects.instance(database.name)["DBInstanceStatus"] == "available"


@beside
def test_a_dry_run_tells_what_is_in_the_way(scene):
    request = alarmed("ALARM")(scene)
    execution, operation = scene.start({**request, "dryRun": True})
    ended = scene.stage.finish(execution)
    assert ended["status"] == "SUCCEEDED" and not ended["output"]["ready"], ended
    [obstacle] = ended["output"]["obstacles"]
    assert "PreCheckFailed" in obstacle or "pre-check" in obstacle, obstacle
    alert = scene.heard.wait(execution)
    assert alert["topic"] == "Warning" and "could not begin now" in alert["subject"]
    scene.untouched(execution)


# Two at once

@beside
def test_two_experiments_do_not_share_a_resource_or_a_name(scene):
    subject, other = scene.subjects.make("ec2-reboot"), scene.subjects.make("ec2-stop")
    request = subject.experiment(parameters=LONG)
    execution, operation = scene.observing(request)
    seen = subject.look()
    mixed = scene.stop(*other.targets["ec2Instances"], subject.targets["ec2Instances"][0])
    scene.refused(mixed, "Dr.OperationInProgress", operation)
    scene.refused({**other.experiment(), "id": request["id"]}, "Dr.OperationInProgress", operation)
    assert subject.look() == seen and other.as_recorded()
    scene.stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
    scene.ended(execution, "aborted", "cancelled")
    assert subject.as_recorded()


@beside
def test_a_backup_and_an_experiment_of_a_database_exclude_each_other(scene):
    """And an experiment whose execution was stopped holds it until everything is put back."""
    stage = scene.stage
    subject = scene.subjects.make("rds-stop")
    [name] = subject.targets["rdsInstances"]

    def refuses_backups():
        ended = stage.finish(scene.backup(name))
        assert (ended["status"], ended.get("error")) == ("FAILED", "Dr.OperationInProgress"), ended
        record = stage.operation(ended["executionArn"])
        assert record["status"] == "failed" and operation in record["error"]["message"], record
    request = subject.experiment(parameters=LONG)
    execution, operation = scene.observing(request)
    # It is stopped, so that its health is not as another experiment wants it.
    healthy = [probe("health-is", database=name, atWorst="warning")]
    scene.refused(scene.function.experiment(preChecks=healthy), "Dr.PreCheckFailed", "health is")
    [line] = journal(stage, operation)["journal"]
    begun, starts = (datetime.datetime.fromisoformat(line[name]) for name in ("begunAt", "startsByItselfAt"))
    assert starts - begun == datetime.timedelta(days=7), line
    refuses_backups()
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    refuses_backups()
    scene.refused({**request, "id": "another"}, "Dr.FaultImpossible", "not available")
    # Time passes; the watchdog of the stack looks.
    let_the_lease_run_out(stage, operation)
    told = watched_to_the_end(stage, operation)
    assert (told["status"], told["reason"]["kind"], told["commands"]) == ("rolled-back", "runner-lost", []), told
    assert subject.as_recorded()
    alert = scene.heard.wait(operation, "rolled-back")
    assert alert["topic"] == "Warning"
    # The other way round: an experiment while a backup holds it.
    backup = named()
    attempts = []
    scene.meanwhile.when(backup, "CreateSnapshot", lambda: attempts.append(
        stage.finish(stage.start("ChaosExperiment", {**request, "id": "meanwhile"}))))
    ended = stage.finish(scene.backup(name, backup))
    assert ended["status"] == "SUCCEEDED", ended
    [attempt] = attempts
    assert (attempt["status"], attempt.get("error")) == ("FAILED", "Dr.OperationInProgress"), attempt
    scene.untouched(attempt["executionArn"])
    assert subject.as_recorded()
    # It has a proven backup now.
    backed = [probe("backups-exist", database=name, withinHours=1), probe("latest-snapshot-proven", database=name)]
    ready = stage.run("ChaosExperiment", {**request, "dryRun": True, "preChecks": backed})
    assert ready["status"] == "SUCCEEDED" and ready["output"]["ready"], ready


# Ending it

@beside
def test_it_is_cancelled_by_name(scene):
    subject = scene.subjects.make("ec2-stop")
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    told = journal(scene.stage, operation)
    assert told["holder"] == execution and [line["status"] for line in told["journal"]] == ["made", "made"], told
    assert len(told["commands"]) == 2 and all("start-instances" in command for command in told["commands"])
    for spoiled in ({"by": ""}, {"reason": " "}, {"force": True}):
        answer, error = scene.stage.invoke("ChaosRunner", {"cancel": {
            "operationId": operation, "by": "grace", "reason": "enough", **spoiled}})
        assert answer is None and error["errorType"] == "Dr.InvalidInput", (spoiled, answer, error)
    assert phase(scene.stage, operation) == "observing"
    answer, error = scene.stage.invoke("ChaosRunner", {"cancel": {
        "operationId": operation, "by": "grace", "reason": "enough seen"}})
    assert error is None and answer["phase"] == "rolling-back", (answer, error)
    output = scene.ended(execution, "aborted", "cancelled")
    assert output["reason"]["detail"] == "grace: enough seen"
    assert subject.as_recorded()
    answer, error = scene.stage.invoke("ChaosRunner", {"cancel": {
        "operationId": "chaos-0123456789abcdef", "by": "grace", "reason": "enough"}})
    assert answer is None and error["errorType"] == "Dr.OperationMissing", (answer, error)


@beside
def test_a_rollback_is_tried_again(scene):
    """The first start of the database is refused; the next attempt is due twenty seconds later."""
    subject = scene.subjects.make("rds-stop")
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    scene.stage.cloud.control("faults", {"action": "StartDBInstance", "nth": 1, "count": 1, "effect": {
        "error": {"code": "InvalidDBInstanceState", "message": "Not now", "status": 400}}})
    scene.stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
    scene.ended(execution, "aborted", "cancelled", 90)
    assert subject.as_recorded()
    assert changes_tried(scene.stage, execution).count("rds:StartDBInstance") >= 2


def stuck(scene, execution: str, operation: str, commands: list[str]) -> None:
    """An experiment that could not be put back: a person is told exactly what to do."""
    ended = scene.stage.finish(execution)
    assert (ended["status"], ended.get("error")) == ("FAILED", "Dr.RollbackFailed"), ended
    record = scene.stage.operation(execution)
    assert record["status"] == "failed" and record["error"]["name"] == "Dr.RollbackFailed", record
    told = report(scene.stage, operation)
    assert (told["status"], told["commands"]) == ("failed", commands), told
    alert = scene.heard.wait(execution)
    assert alert["topic"] == "Critical" and "could NOT be put back" in alert["subject"], alert
    assert all(command in alert["message"] for command in commands), alert
    status = journal(scene.stage, operation)
    assert (status["phase"], status["commands"]) == ("stuck", commands)


@beside
def test_a_rollback_that_fails_calls_a_person_and_is_finished_by_the_watchdog(scene):
    """Its function is deleted in the middle. It and the experiment's name stay taken until it is as recorded."""
    stage = scene.stage
    subject = scene.subjects.make("function-throttle")
    [name] = subject.targets["functions"]
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    stage.cloud.client("lambda").delete_function(FunctionName=name)
    stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
    stuck(scene, execution, operation, [
        f"aws --region {stage.cloud.region} lambda put-function-concurrency --function-name {name} "
        f"--reserved-concurrent-executions 7"])
    create_function(stage, name)
    # Also when days have passed and its lock's lease is over.
    [lock] = [lock for lock in stage._records("lock") if name in lock["resourceId"]["S"]]
    stage.cloud.client("dynamodb").update_item(
        TableName=stage.outputs["StateTableName"], Key={"operationId": lock["operationId"]},
        UpdateExpression="SET leaseUntil = :past", ExpressionAttributeValues={":past": {"S": "2026-01-01T00:00:00Z"}})
    scene.refused({**subject.experiment(), "id": f"after-{name}"}, "Dr.OperationInProgress", operation)
    [record] = [report(stage, operation)]
    another = scene.subjects.make("function-throttle").experiment(id=record["experimentId"])
    scene.refused(another, "Dr.OperationInProgress", "has this name")
    let_the_lease_run_out(stage, operation)
    told = watched_to_the_end(stage, operation)
    assert (told["status"], told["commands"]) == ("aborted", []), told
    assert subject.as_recorded(), subject.look()
    scene.heard.wait(operation, "aborted")
    # It is free again.
    execution, _ = scene.start({**subject.experiment(), "id": f"after-{name}"})
    scene.ended(execution, "completed", "completed")


@beside
def test_a_channel_that_is_named_is_told(scene):
    subject = scene.subjects.make("function-throttle")
    quiet, _ = scene.start(subject.experiment())
    scene.ended(quiet, "completed", "completed")
    execution, operation = scene.start(subject.experiment(parameters={"notificationChannels": ["on-call"]}))
    scene.ended(execution, "completed", "completed")
    until("the channel is told", lambda: heard_on_call(scene.stage, operation), PATIENCE, pause=0.3)
    assert not heard_on_call(scene.stage, quiet)


def heard_on_call(stage, word: str) -> list[dict]:
    """What was told on the channel `on-call` with this word in it."""
    with ON_CALL:
        HEARD_ON_CALL.extend(stage.alerts("OnCall"))
        return [alert for alert in HEARD_ON_CALL if word in alert["subject"] + alert["message"]]


@beside
def test_what_cannot_come_back_is_forgotten_by_hand(scene):
    """An instance that somebody terminated after it was stopped: the last section of the runbook."""
    stage = scene.stage
    first, second = stage.create_instances("a", "b")
    execution, operation = scene.observing(scene.stop(first, second, parameters=LONG))
    stage.cloud.client("ec2").terminate_instances(InstanceIds=[first])
    until("it is terminated", lambda: stage.instance(first)["State"]["Name"] == "terminated")
    output = stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
    assert output[1] is None, output
    stuck(scene, execution, operation, [
        f"aws --region {stage.cloud.region} ec2 start-instances --instance-ids {first}"])
    assert stage.instance(second)["State"]["Name"] == "running", "one does not keep the other from being put back"
    table, records = stage.cloud.client("dynamodb"), stage.outputs["StateTableName"]
    assert any(operation == lock["owner"]["S"] for lock in stage._records("lock"))
    table.delete_item(TableName=records, Key={"operationId": {"S": f"journal#{operation}"}})
    # Whoever comes next takes the locks over.
    execution, _ = scene.start(scene.stop(second))
    scene.ended(execution, "completed", "completed")
    for lock in stage._records("lock"):
        if lock["owner"]["S"] == operation:
            table.delete_item(TableName=records, Key={"operationId": lock["operationId"]})


# What is about all experiments, one after the other

@pytest.fixture(scope="module")
def abandoned(alone, scene):
    """An experiment whose execution was stopped when its faults were in, and the watchdog on its schedule."""
    subject = scene.subjects.make("function-throttle")
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    scene.stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    assert phase(scene.stage, operation) == "observing" and not subject.as_recorded()
    let_the_lease_run_out(scene.stage, operation)
    scene.stage.set_watchdog("ENABLED")
    yield subject, operation
    scene.stage.set_watchdog("DISABLED")


def test_nothing_of_all_that_touched_what_was_only_named(alone):
    """Resources that were named in everything that was refused looked the same all the while."""
    assert alone["watching"].differing() == []


@pytest.mark.usefixtures("abandoned")
def test_nothing_begins_in_a_freeze_window(alone, scene):
    """A dry run says so; one that was approved before it began does not begin in it either."""
    stage = scene.stage
    subject, request = asks(scene)
    execution, operation, plan_hash = scene.asking(request)
    now = datetime.datetime.now(datetime.UTC)
    weekly = f"{(now - datetime.timedelta(days=1)).strftime('%a %H:%M')}/{(now + datetime.timedelta(days=1)).strftime('%a %H:%M')}"
    with configured(stage, CHAOS_FREEZE_WINDOWS=f"2020-01-01T00:00:00Z/2020-01-02T00:00:00Z,{weekly}"):
        scene.refused(subject.experiment(id=named()), "Dr.FreezeWindow", "window 2")
        dry = stage.run("ChaosExperiment", subject.experiment(id=named(), dryRun=True))
        assert dry["status"] == "SUCCEEDED" and not dry["output"]["ready"], dry
        assert "CHAOS_FREEZE_WINDOWS" in dry["output"]["obstacles"][0], dry["output"]
        answer, error = approve(stage, operation, plan_hash, "grace", APPROVERS["grace"])
        assert error is None and answer["approved"], (answer, error)
        scene.refused(None, "Dr.FreezeWindow", "window 2", execution=execution)
    assert subject.as_recorded()


def test_a_key_that_the_role_may_not_use_approves_nothing(alone, scene):
    """CHAOS_APPROVAL_KEY names a key of KMS, and the role was not given it: refused by name, not counted."""
    stage = scene.stage
    key = stage.cloud.client("kms").create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["Arn"]
    subject, request = asks(scene)
    execution, operation, plan_hash = scene.asking(request)
    with configured(stage, CHAOS_APPROVAL_KEY=f"grace={key}"):
        answer, error = approve(stage, operation, plan_hash, "grace", APPROVERS["grace"])
        assert answer is None and error["errorType"] == "Dr.AccessDenied", (answer, error)
        answer, error = approve(stage, operation, plan_hash, "edsger", APPROVERS["edsger"])
        assert answer is None and error["errorType"] == "Dr.ApprovalRequired", (answer, error)
    assert journal(stage, operation)["approvedBy"] == []
    with configured(stage, CHAOS_APPROVAL_KEY=""):
        scene.refused({**request, "id": named()}, "Dr.ApprovalRequired", "CHAOS_APPROVAL_KEY")
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    scene.untouched(execution)
    assert subject.as_recorded()


def stand_by(scene) -> tuple[Stage, str]:
    """The template as a stack of its own in another Region, watching over the stack at home; there the Region fault may
    be used, and approvals are signed by the key of KMS that is returned with it."""
    stage = scene.stage
    kms = stage.cloud.client("kms", STANDBY)
    key = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["Arn"]
    given = {
        "HomeRegion": stage.cloud.region, "HomeStateTableName": stage.outputs["StateTableName"],
        "HomeMetadataBucket": stage.outputs["MetadataBucketName"], "HomeKeyArns": stage.outputs["KeyArn"],
        "TargetRegions": "us-west-2", "TargetKmsKeyIds": f"us-west-2={stage.keys['us-west-2']}",
        "ChaosFunctionNames": LISTED, "ChaosRegionFault": "true", "ChaosApprovalKey": f"grace={key}", "ChaosApproverKeyArns": key,
        "ChaosSettlingSeconds": "1", "BreakerFailures": "100"}
    return stage.beside(STANDBY, given, stack=STANDBY_STACK), given["ChaosApproverKeyArns"]


@pytest.fixture(scope="module")
def standby(alone):
    return alone["standby"].result()[0]


def test_the_emergency_stop_ends_everything_everywhere_until_it_is_lifted(alone, scene, standby):
    stage = scene.stage
    machines, function = scene.subjects.make("ec2-stop"), scene.subjects.make("function-throttle")
    waiting, request = asks(scene)
    waits, operation, plan_hash = scene.asking(request)
    late_request = asks(scene)[1]
    late, late_operation, late_hash = scene.asking(late_request)
    running = [scene.observing(each.experiment(parameters=LONG)) for each in (machines, function)]
    words = {"by": "grace", "reason": "a drill"}
    answer, error = stage.invoke("ChaosRunner", {"emergencyStop": {"by": "", "reason": "none"}})
    assert answer is None and error["errorType"] == "Dr.InvalidInput", (answer, error)
    # A dry run is under way when it comes.
    dry, answers = named(), []
    scene.meanwhile.when(dry, "PlanExperiment", lambda: answers.append(
        stage.invoke("ChaosRunner", {"emergencyStop": words})))
    try:
        looked = stage.finish(stage.start("ChaosExperiment", waiting.experiment(id=dry, dryRun=True), dry))
        [(answer, error)] = answers
        assert error is None, error
        # The one that its execution left may still be open, too.
        assert answer["experiments"] in (len(running), len(running) + 1)
        stopped = {each["region"]: each["status"] for each in answer["regions"]}
        assert stopped == {region: "in-force" if installed(stage, region) else "no-installation"
                           for region in (stage.cloud.region, "us-west-2", STANDBY)}
        assert stopped[STANDBY] == "in-force", "there is a stack"
        scene.untouched(looked["executionArn"])
        assert not looked["output"]["ready"] and "a drill" in looked["output"]["obstacles"][0], looked["output"]
        for execution, _ in running:
            output = scene.ended(execution, "aborted", "emergency-stop")
            assert "grace" in output["reason"]["detail"] and "a drill" in output["reason"]["detail"]
        assert machines.as_recorded() and function.as_recorded()
        # Nothing begins: neither here nor there, also what was approved.
        scene.refused(machines.experiment(), "Dr.EmergencyStopActive", "grace")
        backup = stage.finish(scene.backup(scene.database.targets["rdsInstances"][0]))
        assert (backup["status"], backup.get("error")) == ("FAILED", "Dr.EmergencyStopActive"), backup
        there = standby.run("ChaosExperiment", experiment("application", {"functions": ["any"]},
                                                          [{"fault": "function-throttle"}]))
        assert (there["status"], there.get("error")) == ("FAILED", "Dr.EmergencyStopActive"), there
        answer, error = approve(stage, operation, plan_hash, "grace", APPROVERS["grace"])
        assert error is None and answer["approved"], (answer, error)
        scene.refused(None, "Dr.EmergencyStopActive", "grace", execution=waits)
        assert waiting.as_recorded()
    finally:
        answer, error = stage.invoke("ChaosRunner", {"liftEmergencyStop": {"by": "grace", "reason": "over"}})
    assert error is None, error
    assert {each["region"]: each["status"] for each in answer["regions"]} == {
        region: "lifted" if status == "in-force" else status for region, status in stopped.items()}
    # What waited when the stop came does not begin because it is lifted.
    answer, error = approve(stage, late_operation, late_hash, "grace", APPROVERS["grace"])
    assert error is None and answer["approved"], (answer, error)
    scene.refused(None, "Dr.EmergencyStopActive", "had begun", execution=late)
    execution, operation = scene.observing(function.experiment(parameters=LONG))
    stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "it begins"}})
    scene.ended(execution, "aborted", "cancelled")


def test_a_journal_that_cannot_be_read_keeps_no_other_from_being_put_back(alone, scene):
    stage = scene.stage
    table, key = stage.outputs["StateTableName"], {"operationId": {"S": "journal#unreadable"}}
    items = stage.cloud.client("dynamodb")
    subject = scene.subjects.make("function-throttle")
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    items.put_item(TableName=table, Item={
        **key, "type": {"S": "journal"}, "status": {"S": "rolling-back"}, "startedAt": {"S": "2026-01-01T00:00:00Z"}})
    try:
        let_the_lease_run_out(stage, operation)
        assert watched_to_the_end(stage, operation)["status"] == "rolled-back"
        assert subject.as_recorded()
        assert watch(stage)["failed"] >= 1, "somebody has to look at it"
    finally:
        items.delete_item(TableName=table, Key=key)


def test_the_emergency_stop_of_the_standby_reaches_home(alone, scene, standby):
    """Home's Lambda does not answer, say: what runs there hears it from the table."""
    stage, words = scene.stage, {"by": "grace", "reason": "home does not answer"}
    subject = scene.subjects.make("function-throttle")
    execution, _ = scene.observing(subject.experiment(parameters=LONG))
    try:
        answer, error = standby.invoke("ChaosRunner", {"emergencyStop": words})
        assert error is None, error
        stopped = {each["region"]: each["status"] for each in answer["regions"]}
        assert stopped[stage.cloud.region] == stopped[STANDBY] == "in-force", stopped
        assert answer["experiments"] >= 1, "home's are counted"
        scene.ended(execution, "aborted", "emergency-stop")
        assert subject.as_recorded()
        scene.refused(subject.experiment(), "Dr.EmergencyStopActive", "home does not answer")
    finally:
        answer, error = standby.invoke("ChaosRunner", {"liftEmergencyStop": words})
    assert error is None and {each["region"]: each["status"] for each in answer["regions"]}[stage.cloud.region] == "lifted"


def installed(stage, region: str) -> bool:
    return stage.outputs["StateTableName"] in stage.cloud.client("dynamodb", region).list_tables()["TableNames"]


def test_the_watchdog_wakes_by_itself(scene, abandoned):
    """As the template schedules it, every minute of real time: nobody asks it to. It began beside the tests above."""
    subject, operation = abandoned
    until("the watchdog finishes it", lambda: phase(scene.stage, operation) == "ended", 90, pause=0.5)
    scene.stage.set_watchdog("DISABLED")
    assert subject.as_recorded()
    assert report(scene.stage, operation)["reason"]["kind"] == "runner-lost"
    assert scene.heard.wait(operation, "rolled-back")["topic"] == "Warning"


def test_the_standby_finishes_what_home_left(alone, scene, standby):
    """Nobody watches at home. The report is the standby's, and its topics tell."""
    stage = scene.stage
    subject = scene.subjects.make("ec2-stop")
    execution, operation = scene.observing(subject.experiment(parameters=LONG))
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    assert watch(standby)["abandoned"] == 0, "its lease is not over"
    assert not subject.as_recorded()
    let_the_lease_run_out(stage, operation)
    until("the standby puts it back", lambda: watch(standby) and phase(stage, operation) == "ended", pause=0.5)
    assert subject.as_recorded()
    told = report(standby, operation)
    assert (told["status"], told["reason"]["kind"]) == ("rolled-back", "runner-lost"), told
    assert told["journal"]["holder"] == f"watchdog in {STANDBY}"
    assert any(operation in alert["message"] for alert in standby.alerts("Warning"))


def test_the_watchdog_calls_a_person_and_not_again_within_the_hour(alone, scene):
    """Nobody else would: the execution is gone. The channels that the experiment names hear of its end from it, too."""
    stage = scene.stage
    subject = scene.subjects.make("function-throttle")
    [name] = subject.targets["functions"]
    execution, operation = scene.observing(subject.experiment(
        parameters={**LONG, "notificationChannels": ["on-call"]}))
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    stage.cloud.client("lambda").delete_function(FunctionName=name)
    let_the_lease_run_out(stage, operation)
    told = watched_to_the_end(stage, operation)
    command = (f"aws --region {stage.cloud.region} lambda put-function-concurrency --function-name {name} "
               f"--reserved-concurrent-executions 7")
    assert (told["status"], told["commands"]) == ("failed", [command]), told

    def pages():
        return [alert for alert in scene.heard.about(operation, "needs you") if alert["topic"] == "Critical"]
    until("a person is called", pages, PATIENCE, pause=0.3)
    for _ in range(3):
        watch(stage)
    until("it is stuck again", lambda: watch(stage)["stuck"] >= 1)
    [page] = pages()
    assert command in page["message"], page
    assert not heard_on_call(stage, operation), "it is not over"
    create_function(stage, name)
    # It tries again when its own lease is over.
    let_the_lease_run_out(stage, operation)
    until("it is put back", lambda: watch(stage) and phase(stage, operation) == "ended", 90, pause=0.5)
    assert report(stage, operation)["status"] == "rolled-back"
    assert subject.as_recorded(), subject.look()
    assert len(pages()) == 1
    until("the channel hears of the end", lambda: heard_on_call(stage, operation), PATIENCE, pause=0.3)


def test_what_was_broken_elsewhere_is_put_back_there_when_home_is_gone(alone, scene, standby):
    """An experiment leaves its journal with the stack in the Region that it breaks, and takes it back at its end."""
    stage, name = scene.stage, named()
    create_function(standby, name)
    functions = standby.cloud.client("lambda")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=7)

    def reserved():
        return functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    request = experiment("application", {"functions": [name], "regions": [STANDBY]}, [{"fault": "function-throttle"}],
                         parameters=LONG)
    execution, operation = scene.observing(request)
    assert reserved() == 0
    assert watch(standby) | {"open": 0} == {"open": 0, "abandoned": 0, "ended": 0, "stuck": 0, "failed": 0}
    answer, error = standby.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "it is here"}})
    assert answer is None and error["errorType"] == "Dr.InvalidInput", (answer, error)
    assert f"the stack in {stage.cloud.region}" in error["errorMessage"], error
    # One that ends at home is known there no more.
    stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "the first one"}})
    scene.ended(execution, "aborted", "cancelled")
    assert reserved() == 7 and phase(standby, operation) is None
    # Home is gone: nobody there works on the next one, and it should have been over long ago.
    execution, operation = scene.observing({**request, "id": named()})
    assert reserved() == 0
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    let_the_lease_run_out(standby, operation)
    until("it is put back from there", lambda: watch(standby) and phase(standby, operation) == "ended", pause=0.5)
    assert reserved() == 7
    told = report(standby, operation)
    assert (told["status"], told["reason"]["kind"]) == ("rolled-back", "runner-lost"), told
    assert any(operation in alert["message"] for alert in standby.alerts("Warning"))
    # Home is back, and finds everything as it was.
    let_the_lease_run_out(stage, operation)
    assert watched_to_the_end(stage, operation)["status"] == "rolled-back"
    assert reserved() == 7


def test_an_attempt_that_died_leaves_nothing_with_the_other_stack(alone, scene, standby):
    """It left its journal and its locks there, and died; the next attempt is refused."""
    stage, name, alarm = scene.stage, named(), f"there-{uuid.uuid4().hex[:8]}"
    create_function(standby, name)
    standby.create_alarm(alarm)
    request = experiment("application", {"functions": [name], "regions": [STANDBY]}, [{"fault": "function-throttle"}],
                         parameters=LONG, preChecks=[probe("alarm-is-ok", alarm=alarm)])
    execution, operation = scene.observing(request)
    writes = sorted(call["call"] for call in calls_of(stage, execution)
                    if call["state"] == "ArmExperiment" and "dynamodb:PutItem" in call["actions"])
    assert len(writes) == 2, "there and here"
    stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
    scene.ended(execution, "aborted", "cancelled")
    dies, left = named(), []

    def meanwhile():
        left.append([lock["owner"]["S"] for lock in standby._records("lock") if name in lock["resourceId"]["S"]])
        standby.set_alarm(alarm, "ALARM")
    stage.cloud.order("orders", {"execution": dies, "state": "ArmExperiment", "attempt": 1, "count": 1,
                                 "effect": {"killAtCall": writes[0]}})
    scene.meanwhile.when(dies, "ArmExperiment", meanwhile, attempt=2)
    execution = stage.start("ChaosExperiment", {**request, "id": named()}, dies)
    scene.refused(None, "Dr.PreCheckFailed", "ALARM", execution=execution)
    operation = operation_of(stage, execution)
    assert left == [[operation]]
    assert phase(standby, operation) is None
    assert [lock for lock in standby._records("lock") if name in lock["resourceId"]["S"]] == []


def test_two_stacks_do_not_share_a_resource(alone, scene, standby):
    """An experiment of home on an instance in the standby's Region, and one of the standby's own."""
    [machine] = standby.create_instances("a")
    there = dataclasses.replace(scene, stage=standby, heard=Heard(standby))

    def reboots(**more) -> dict:
        return experiment("infrastructure", {"ec2Instances": [machine], **more}, [{"fault": "ec2-reboot"}], parameters=LONG)
    of_home, of_standby = reboots(regions=[STANDBY]), reboots()
    for first, asked, second, refused in ((scene, of_home, there, of_standby), (there, of_standby, scene, of_home)):
        execution, operation = first.observing({**asked, "id": named()})
        second.refused({**refused, "id": named()}, "Dr.OperationInProgress", operation)
        first.stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough"}})
        first.ended(execution, "aborted", "cancelled")
    for where in (scene.stage, standby):
        assert [lock for lock in where._records("lock") if machine in lock["resourceId"]["S"]] == []


def test_what_is_listed_is_broken_and_put_back_without_the_tag(alone, scene, standby):
    """The parameter ChaosFunctionNames tells the code and the role."""
    there = dataclasses.replace(scene, stage=standby, heard=Heard(standby))
    functions = standby.cloud.client("lambda")
    create_function(standby, LISTED, tagged=False)
    functions.put_function_concurrency(FunctionName=LISTED, ReservedConcurrentExecutions=7)

    def reserved():
        return functions.get_function_concurrency(FunctionName=LISTED)["ReservedConcurrentExecutions"]
    execution, operation = there.observing(experiment(
        "application", {"functions": [LISTED]}, [{"fault": "function-throttle"}], parameters=LONG))
    assert reserved() == 0
    standby.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough seen"}})
    there.ended(execution, "aborted", "cancelled")
    assert reserved() == 7


def test_the_emergency_stop_is_set_by_hand_as_the_runbook_says(alone, scene):
    """If Lambda itself does not answer: the command of the runbook, as it stands there."""
    stage = scene.stage
    text = (ROOT / "docs" / "runbooks" / "emergency-stop.md").read_text()
    [command] = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "update-item" in block]
    subject = scene.subjects.make("function-throttle")
    execution, _ = scene.observing(subject.experiment(parameters=LONG))
    # What the clock says to the second must not be before its beginning.
    time.sleep(1)
    try:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env={
            **os.environ, **stage.cloud.environment(), "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"})
        output = scene.ended(execution, "aborted", "emergency-stop")
        assert "YOU" in output["reason"]["detail"] and "WHY" in output["reason"]["detail"], output["reason"]
        assert subject.as_recorded()
        scene.refused(subject.experiment(), "Dr.EmergencyStopActive", "YOU")
    finally:
        answer, error = stage.invoke("ChaosRunner", {"liftEmergencyStop": {"by": "grace", "reason": "over"}})
    assert error is None, error


def test_a_region_is_unreachable_for_our_functions_while_it_is_asked_for(alone, scene, standby):
    """In the stack that may use the fault; approved by a key of KMS, which the role may use."""
    def unreachable():
        answer, error = standby.invoke("HealthCheck", {"check": {"alert": False}})
        assert error is None, error
        return {finding["region"] for finding in answer["findings"] if finding["code"] == "unreachable"}

    def becomes(regions):
        # What was read of the blocks is believed for five seconds.
        until(f"unreachable: {regions}", lambda: unreachable() == regions, PATIENCE, pause=1)
    becomes(set())
    kms = standby.cloud.client("kms")
    key = alone["standby"].result()[1]
    request = experiment("regional", {"regions": ["us-west-2"]}, [{"fault": "region-unreachable"}], parameters=LONG)
    there = dataclasses.replace(scene, stage=standby, heard=Heard(standby))
    execution, operation, plan_hash = there.asking(request)

    def sign(text):
        return kms.generate_mac(KeyId=key, MacAlgorithm="HMAC_SHA_256", Message=text)["Mac"]
    answer, error = approve(standby, operation, plan_hash, "grace", APPROVERS["grace"])
    assert answer is None and error["errorType"] == "Dr.ApprovalRequired", (answer, error)
    assert unreachable() == set() and there.untouched(execution) is None
    answer, error = approve(standby, operation, plan_hash, "grace", sign)
    assert error is None and answer["approved"], (answer, error)
    until("the Region is blocked", lambda: phase(standby, operation) == "observing", pause=0.2)
    becomes({"us-west-2"})
    standby.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "enough seen"}})
    there.ended(execution, "aborted", "cancelled")
    becomes(set())
    assert journal(standby, operation)["approvedBy"] == ["grace"]
    # Whatever write its runner dies after, the watchdog lets the Region be reached again.
    writes = {call["call"] for call in calls_of(standby, execution)
              if call["state"] == "InjectFaults" and "dynamodb:PutItem" in call["actions"]}
    assert len(writes) >= 3, "its journal before, the block, its journal after"
    for call in sorted(writes):
        name = named()
        standby.cloud.order("orders", {"execution": name, "state": "InjectFaults", "count": 0, "effect": {"killAtCall": call}})
        execution, operation, plan_hash = there.asking({**request, "id": named()}, name)
        answer, error = approve(standby, operation, plan_hash, "grace", sign)
        assert error is None and answer["approved"], (answer, error)
        until("it is killed", lambda of=name: standby.cloud.order(f"orders?execution={of}")[0]["finished"], PATIENCE)
        standby.cloud.client("stepfunctions").stop_execution(executionArn=execution)
        standby.cloud.order(f"orders?execution={name}", method="DELETE")
        assert any((made["state"], made["call"]) == ("InjectFaults", call) for made in calls_of(standby, execution)), "killed"

        def over(operation=operation):
            if (journal(standby, operation)["holder"] or "").startswith("arn:"):
                let_the_lease_run_out(standby, operation)
            watch(standby)
            return phase(standby, operation) == "ended"
        until("the watchdog has ended it", over, PATIENCE, pause=0.5)
        assert report(standby, operation)["status"] == "rolled-back"
        becomes(set())


def test_nothing_is_left(alone, scene):
    """But the names of experiments whose execution was stopped before it began: whoever comes next takes them over."""
    stage, states = scene.stage, scene.stage.cloud.client("stepfunctions")
    for lock in stage._records("lock"):
        ended = states.describe_execution(executionArn=lock["ownerExecution"]["S"])["status"]
        if lock["resourceId"]["S"].startswith("experiment:") and ended == "ABORTED":
            stage.cloud.client("dynamodb").delete_item(
                TableName=stage.outputs["StateTableName"], Key={"operationId": lock["operationId"]})
    assert stage.leftovers() == []

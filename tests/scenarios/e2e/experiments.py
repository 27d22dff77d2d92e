"""Experiments of the tests: one subject for each fault, with resources of its own, and how it looks when it is broken
and when it is as it was.
"""

import concurrent.futures
import contextlib
import datetime
import hashlib
import hmac
import http.server
import io
import re
import threading
import uuid
import zipfile

import boto3
from stage import MAY_BE_HARMED, TOPICS, Stage, until

# The approvers' keys, as the secret of the stage has them (conftest.py).
APPROVERS = {name: hashlib.sha256(name.encode()).digest() for name in ("grace", "edsger", "ada")}
# The shortest that an experiment may last, milliseconds. It is real time: only waits between looks pass quicker here.
SHORTEST = 10_000


def experiment(family: str, targets: dict, faults: list[dict] | None = None, **more) -> dict:
    """An experiment that is carried out. `more` overrides members; `parameters` is merged."""
    parameters = {"duration": SHORTEST, "intensity": 100, "minimumHealthy": 0, "recoverySeconds": 60,
                  **more.pop("parameters", {})}
    return {
        "id": f"test-{uuid.uuid4().hex[:12]}", "name": "A test", "type": family, "severity": "medium",
        "targetResources": targets, **({"faults": faults} if faults else {}), "parameters": parameters,
        "rollbackPlan": [{"action": "undo-faults"}], "dryRun": False, "requestedBy": "ada", **more}


class Subject:
    """Resources that a fault happens to."""

    def __init__(self, name: str, family: str, targets: dict, faults: list[dict], look, call: str | None = None, **more):
        self.name, self.family, self.targets, self.faults, self.more = name, family, targets, faults, more
        self.look, self.call = look, call
        self.recorded = look()

    def experiment(self, **more) -> dict:
        targets = self.targets() if callable(self.targets) else self.targets
        return experiment(self.family, targets, self.faults, **{**self.more, **more})

    def as_recorded(self) -> bool:
        return self.look() == self.recorded


def each(names: list[str], what, together: int = 16) -> dict:
    """What comes of each, side by side. What fails is told when it is asked for (`came_to`)."""
    def attempt(name):
        try:
            return what(name)
        except Exception as fault:
            return fault
    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        return dict(zip(names, pool.map(attempt, names), strict=True))


def came_to(results: dict, name: str):
    """What came of one of them."""
    if isinstance(results[name], Exception):
        raise results[name]
    return results[name]


class Watching:
    """Looks at a subject all the while, and keeps every look that differs from what was recorded."""

    def __init__(self, subject: Subject, pause: float = 0.1):
        self.subject, self.seen, self._pause, self._over = subject, [], pause, threading.Event()
        self._looks, self._fault = 0, None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        try:
            while not self._over.wait(self._pause):
                seen = self.subject.look()
                self._looks += 1
                if seen != self.subject.recorded and seen not in self.seen:
                    self.seen.append(seen)
        except Exception as fault:  # noqa: BLE001  (said by `differing`)
            self._fault = fault

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def differing(self) -> list:
        """The looks that differ. One that sees nothing because it does not look has seen nothing in vain."""
        if self._fault:
            raise self._fault
        assert self._looks > 0, f"{self.subject.name} was never looked at"
        return self.seen


class Subjects:
    """Makes subjects, each with resources of its own."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.rds = stage.cloud.client("rds")
        self.ec2 = stage.cloud.client("ec2")

    def names(self) -> list[str]:
        return [name.removeprefix("make_").replace("_", "-") for name in dir(self) if name.startswith("make_")]

    def make(self, name: str) -> Subject:
        return getattr(self, f"make_{name.replace('-', '_')}")(f"{name}-{uuid.uuid4().hex[:6]}")

    # Databases

    def instance(self, name: str) -> dict:
        [told] = self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        return told

    def cluster(self, name: str) -> dict:
        [told] = self.rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
        return told

    def _database(self, name: str, fault: dict, call: str, **options) -> Subject:
        self.stage.create_database(name, Tags=[MAY_BE_HARMED], **options)

        def look():
            told = self.instance(name)
            return {"status": told["DBInstanceStatus"], "zone": told.get("AvailabilityZone")}
        return Subject(name, "database", {"rdsInstances": [name]}, [fault], look, call)

    def make_rds_failover(self, name):
        return self._database(name, {"fault": "rds-failover", "failBack": True}, "rds:RebootDBInstance", MultiAZ=True)

    def make_rds_reboot(self, name):
        return self._database(name, {"fault": "rds-reboot"}, "rds:RebootDBInstance")

    def make_rds_stop(self, name):
        return self._database(name, {"fault": "rds-stop"}, "rds:StopDBInstance")

    def _cluster(self, name: str, fault: dict, call: str, members: int) -> Subject:
        self.stage.create_cluster(name, Tags=[MAY_BE_HARMED])
        for number in range(2, members + 1):
            self.rds.create_db_instance(DBInstanceIdentifier=f"{name}-{number}", DBClusterIdentifier=name,
                                        Engine="aurora-postgresql", DBInstanceClass="db.r6g.large")

        def look():
            told = self.cluster(name)
            writers = [one["DBInstanceIdentifier"] for one in told["DBClusterMembers"] if one["IsClusterWriter"]]
            return {"status": told["Status"], "writers": writers}
        until(f"{name} available", lambda: look()["status"] == "available" and all(
            self.instance(one["DBInstanceIdentifier"])["DBInstanceStatus"] == "available"
            for one in self.cluster(name)["DBClusterMembers"]))
        return Subject(name, "database", {"rdsClusters": [name]}, [fault], look, call)

    def make_cluster_failover(self, name):
        fault = {"fault": "cluster-failover", "failBack": True}
        return self._cluster(name, fault, "rds:FailoverDBCluster", members=2)

    def make_cluster_stop(self, name):
        return self._cluster(name, {"fault": "cluster-stop"}, "rds:StopDBCluster", members=1)

    # Instances and groups of them

    def _instances(self, fault: dict, call: str, family="infrastructure", **options) -> Subject:
        ids = self.stage.create_instances("a", "b", **options)

        def look():
            told = [self.stage.instance(one) for one in ids]
            groups = [sorted(group["GroupId"] for group in one["SecurityGroups"]) for one in told]
            return {"states": [one["State"]["Name"] for one in told], "groups": groups}
        return Subject(ids[0], family, {"ec2Instances": ids}, [fault], look, call)

    def make_ec2_stop(self, _):
        return self._instances({"fault": "ec2-stop"}, "ec2:StopInstances")

    def make_ec2_reboot(self, _):
        return self._instances({"fault": "ec2-reboot"}, "ec2:RebootInstances")

    def make_ec2_terminate(self, name):
        group = self.stage.create_scaling_group(name, 2)

        def look():
            return {"inService": len(self.stage.in_service(group))}

        def victim():
            """Whoever was named before is gone."""
            return {"ec2Instances": sorted(self.stage.in_service(group))[:1]}
        return Subject(name, "infrastructure", victim, [{"fault": "ec2-terminate"}], look,
                       "autoscaling:TerminateInstanceInAutoScalingGroup")

    def _group(self, name: str, fault: dict, call: str, desired: int = 3) -> Subject:
        group = self.stage.create_scaling_group(name, desired)

        def look():
            [told] = self.stage.cloud.client("autoscaling").describe_auto_scaling_groups(
                AutoScalingGroupNames=[group])["AutoScalingGroups"]
            return {"sizes": [told[size] for size in ("MinSize", "DesiredCapacity", "MaxSize")],
                    "suspended": sorted(one["ProcessName"] for one in told["SuspendedProcesses"]),
                    "inService": len(self.stage.in_service(group))}
        return Subject(name, "infrastructure", {"autoScalingGroups": [group]}, [fault], look, call)

    def make_asg_suspend(self, name):
        fault = {"fault": "asg-suspend", "processes": ["Launch", "ReplaceUnhealthy"]}
        return self._group(name, fault, "autoscaling:SuspendProcesses")

    def make_asg_capacity(self, name):
        return self._group(name, {"fault": "asg-capacity", "desired": 1}, "autoscaling:UpdateAutoScalingGroup")

    # The network

    def _targets(self, name: str, fault: dict) -> Subject:
        ids = self.stage.create_instances("a", "a", "b")
        arn = self.stage.create_target_group(name[:32], ids)

        def look():
            return {one: state for one, state in self.stage.target_health(arn).items() if state != "draining"}
        return Subject(name, "network", {"targetGroups": [arn]}, [fault], look, "elasticloadbalancing:DeregisterTargets")

    def make_targets_deregister(self, name):
        return self._targets(name, {"fault": "targets-deregister"})

    def make_zone_drain(self, name):
        return self._targets(name, {"fault": "zone-drain", "zone": f"{self.stage.cloud.region}a"})

    def _security_groups(self, name: str) -> list[str]:
        return [self.ec2.create_security_group(GroupName=f"{name}-{number}", Description="For a test")["GroupId"]
                for number in range(3)]

    def make_security_group_detach(self, name):
        first, second, _ = self._security_groups(name)
        return self._instances({"fault": "security-group-detach", "securityGroup": first},
                               "ec2:ModifyInstanceAttribute", "network", SecurityGroupIds=[first, second])

    def make_security_group_isolate(self, name):
        first, second, closed = self._security_groups(name)
        # A new one lets everything out.
        self.ec2.revoke_security_group_egress(GroupId=closed, IpPermissions=[
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
        return self._instances({"fault": "security-group-isolate", "securityGroup": closed},
                               "ec2:ModifyInstanceAttribute", "network", SecurityGroupIds=[first, second])

    # Functions

    def make_function_throttle(self, name):
        create_function(self.stage, name)
        client = self.stage.cloud.client("lambda")
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=7)

        def look():
            return {"reserved": client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")}
        return Subject(name, "application", {"functions": [name]}, [{"fault": "function-throttle"}], look,
                       "lambda:PutFunctionConcurrency")


def create_function(stage: Stage, name: str, tagged: bool = True) -> None:
    """A function that is there; it is never invoked with success."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("bootstrap", "#!/bin/sh\nexit 1\n")
    functions = stage.cloud.client("lambda")
    role = functions.get_function_configuration(FunctionName=stage.outputs["UpdateStateFunctionName"])["Role"]
    functions.create_function(
        FunctionName=name, Runtime="provided.al2023", Handler="bootstrap", Role=role,
        Code={"ZipFile": archive.getvalue()}, Tags={MAY_BE_HARMED["Key"]: MAY_BE_HARMED["Value"]} if tagged else {})


def calls_of(stage: Stage, execution: str) -> list[dict]:
    """What the functions of an execution called, in order."""
    return stage.cloud.order(f"calls?execution={execution}")


def journal(stage: Stage, operation: str) -> dict:
    """Where an experiment is, as `chaos_runner` says it."""
    answer, error = stage.invoke("ChaosRunner", {"status": {"operationId": operation}})
    assert error is None, error
    return answer


def operation_of(stage: Stage, execution: str, seconds: float = 240) -> str:
    """The operation of an execution, as soon as it is recorded."""
    return until("the experiment is recorded", lambda: stage.operation(execution), seconds)["operationId"]


def phase(stage: Stage, operation: str) -> str | None:
    """Where an experiment is; None before it asks or begins."""
    answer, _ = stage.invoke("ChaosRunner", {"status": {"operationId": operation}})
    return answer and answer["phase"]


def let_the_lease_run_out(stage: Stage, operation: str) -> None:
    """Time passes: whoever worked on the experiment has not been heard of for longer than a lease."""
    stage.cloud.client("dynamodb").update_item(
        TableName=stage.outputs["StateTableName"], Key={"operationId": {"S": f"journal#{operation}"}},
        UpdateExpression="SET leaseUntil = :past",
        ExpressionAttributeValues={":past": {"S": "2026-01-01T00:00:00Z"}})


def watch(stage: Stage) -> dict:
    """The watchdog looks once."""
    answer, error = stage.invoke("ChaosRunner", {"watch": {}})
    assert error is None, error
    return answer


def watched_to_the_end(stage: Stage, operation: str, seconds: float = 90) -> dict:
    """The watchdog looks until the experiment is over; returns its report."""
    def over():
        watch(stage)
        return phase(stage, operation) in ("ended", "stuck")
    until(f"{operation} is brought to its end", over, seconds, pause=0.5)
    return report(stage, operation)


def report(stage: Stage, operation: str) -> dict:
    """The whole report of an experiment that is over."""
    return stage.report(f"chaos/{operation}/report.json")


def approve(stage: Stage, operation: str, plan_hash: str, approver: str, key, minutes: float = 30, **changed):
    """Gives an approval as a person would; `changed` spoils it. `key` is the approver's, or a function that makes the
    code of a text. Returns (answer, error)."""
    expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)).replace(microsecond=0)
    given = {"planHash": plan_hash, "approver": approver, "expiresAt": expires.isoformat().replace("+00:00", "Z")}
    parts = [part.encode() for part in ("lifeboat chaos approval 1", operation, given["planHash"], approver,
                                        given["expiresAt"])]
    text = b"".join(b"%d:%s\n" % (len(part), part) for part in parts)
    code = key(text) if callable(key) else hmac.new(key, text, hashlib.sha256).digest()
    given["code"] = code.hex()
    return stage.invoke("ChaosRunner", {"approve": {"operationId": operation, "approval": {**given, **changed}}})



# Tags, roles and configuration

def tag(stage: Stage, subject: Subject, value: str | None) -> None:
    """Gives the tag of experiments another value on all resources of a subject, or takes it off."""
    key, [(kind, names)] = MAY_BE_HARMED["Key"], subject.targets.items()
    given = {"Key": key, "Value": value}
    client, cloud = stage.cloud.client, stage.cloud
    for name in names:
        if kind in ("rdsInstances", "rdsClusters"):
            kind_of_arn = "db" if kind == "rdsInstances" else "cluster"
            arn = f"arn:aws:rds:{cloud.region}:{cloud.account}:{kind_of_arn}:{name}"
            if value is None:
                client("rds").remove_tags_from_resource(ResourceName=arn, TagKeys=[key])
            else:
                client("rds").add_tags_to_resource(ResourceName=arn, Tags=[given])
        elif kind == "ec2Instances":
            if value is None:
                client("ec2").delete_tags(Resources=[name], Tags=[{"Key": key}])
            else:
                client("ec2").create_tags(Resources=[name], Tags=[given])
        elif kind == "autoScalingGroups":
            of = {"ResourceId": name, "ResourceType": "auto-scaling-group"}
            if value is None:
                client("autoscaling").delete_tags(Tags=[{**of, "Key": key}])
            else:
                client("autoscaling").create_or_update_tags(Tags=[{**of, **given, "PropagateAtLaunch": True}])
        elif kind == "targetGroups":
            if value is None:
                client("elbv2").remove_tags(ResourceArns=[name], TagKeys=[key])
            else:
                client("elbv2").add_tags(ResourceArns=[name], Tags=[given])
        else:
            arn = f"arn:aws:lambda:{cloud.region}:{cloud.account}:function:{name}"
            if value is None:
                client("lambda").untag_resource(Resource=arn, TagKeys=[key])
            else:
                client("lambda").tag_resource(Resource=arn, Tags={key: value})


def as_runner(stage: Stage, service: str):
    """A client with the rights of `chaos_runner`."""
    name = stage.outputs["ChaosRunnerFunctionName"]
    role = stage.cloud.client("lambda").get_function_configuration(FunctionName=name)["Role"]
    session = stage.cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return boto3.client(
        service, region_name=stage.cloud.region, endpoint_url=stage.cloud.endpoint,
        aws_access_key_id=session["AccessKeyId"], aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"])


@contextlib.contextmanager
def configured(stage: Stage, **variables: str):
    """`chaos_runner` with other environment variables, for as long as the block lasts."""
    client, name = stage.cloud.client("lambda"), stage.outputs["ChaosRunnerFunctionName"]
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def put(values):
        client.update_function_configuration(FunctionName=name, Environment={"Variables": values})
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    put({**before, **variables})
    try:
        yield
    finally:
        put(before)


# What happened meanwhile

# A call that changes what experiments touch; the runner asks other functions by invoking them.
CHANGE = re.compile(r"(rds|ec2|autoscaling|elasticloadbalancing|lambda):(?!Describe|Get|List|InvokeFunction)")


def changes_tried(stage: Stage, execution: str) -> list[str]:
    """The calls of an execution's functions that change a resource, those that were refused included."""
    return [action for call in calls_of(stage, execution) for action in call["actions"] if CHANGE.match(action)]


class Heard:
    """What was told on the topics since it began to listen."""

    def __init__(self, stage: Stage):
        self._stage, self._lock, self._all = stage, threading.Lock(), []

    def about(self, *words: str) -> list[dict]:
        """Topic, subject and message of what has all these words in it."""
        with self._lock:
            self._all += [{**alert, "topic": topic} for topic in TOPICS for alert in self._stage.alerts(topic)]
            return [alert for alert in self._all
                    if all(word in alert["subject"] + alert["message"] for word in words)]

    def wait(self, *words: str) -> dict:
        """The first of those, as soon as it is there."""
        return until(f"something is told with {words}", lambda: self.about(*words), 240, pause=0.3)[0]


class Meanwhile:
    """What a test does while an execution is between two states: when one of its states is entered, before the function
    is invoked."""

    def __init__(self, stage: Stage):
        self._stage, self._acts, self.raised = stage, {}, []
        mine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802  (the name that is looked for)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    mine._acts[self.path]()
                except Exception as error:  # noqa: BLE001  (said by whoever asks for `raised`)
                    mine.raised.append(error)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def when(self, execution: str, state: str, act, attempt: int = 1) -> None:
        """Does `act` when the execution of that name enters the state."""
        path = f"/{uuid.uuid4().hex}"
        self._acts[path] = act
        url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"
        self._stage.cloud.order("orders", {"execution": execution, "state": state, "attempt": attempt,
                                           "effect": {"first": {"url": url, "body": {}}}})


# Tests that run beside each other

class Beside:
    """Scenarios of a file that run beside each other, in threads, and are reported one by one as tests."""

    def __init__(self):
        self.scenarios: dict[str, object] = {}

    def __call__(self, scenario):
        """A test of the scenario's name; it needs the fixture `came`: what `run` returned."""
        def test(came):
            came[scenario.__name__].result()
        test.__name__ = test.__qualname__ = scenario.__name__
        test.__doc__, test.__module__ = scenario.__doc__, scenario.__module__
        self.scenarios[scenario.__name__] = scenario
        return test

    def run(self, pool, request, *arguments) -> dict:
        """Begins all that are among the session's tests; returns the future of each by its name."""
        asked = {getattr(item, "originalname", None) for item in request.session.items}
        return {name: pool.submit(scenario, *arguments) for name, scenario in self.scenarios.items() if name in asked}

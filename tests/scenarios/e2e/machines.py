"""The scenario harness: every state of every machine failing in turn, killed, run twice, robbed of its answer.

A machine gets this by a description in tests/scenarios/machines (README.md there says what is in one). What can happen
to a state follows from its definition and from raises.json; what must be true afterwards is in the description's ends.
Nothing here knows a machine.
"""

import dataclasses
import hashlib
import itertools
import json
import queue
import re
import threading
import time
import uuid
from pathlib import Path

from cloud import TARGET_REGIONS
from experiments import create_function, let_the_lease_run_out, watched_to_the_end
from stage import MAY_BE_HARMED, Stage, StageError, plain, until

HERE = Path(__file__).resolve().parent
SCENARIOS = HERE.parent
ROOT = SCENARIOS.parent.parent
# For how long an execution may take that takes half a minute on a machine with nothing else to do, seconds.
PATIENCE = 480
KINDS = ("backup", "proof", "fleet", "chaos")
TOPICS = ("Critical", "Warning", "Info")
# Errors of the services themselves, which every machine retries.
SERVICE_ERRORS = ("Lambda.Unknown", "Sandbox.Timedout", "States.Timeout")
# What is due after StopExecution: nobody records it and nobody is told, because a person did it. The record stays
# `running`, the lock is taken over by the next start, a temporary instance has its lease.
STOPPED = {"status": "ABORTED", "record": "running", "alerts": [], "leased": True}
# What is recorded for them.
RECORDED_AS = {"Lambda.Unknown": "Dr.FunctionKilled", "Runtime.ExitError": "Dr.FunctionKilled",
               "Sandbox.Timedout": "Dr.FunctionTimedOut", "States.Timeout": "Dr.FunctionTimedOut",
               "StepFunctions.StateMachineDoesNotExistException": "Dr.AwsRejected",
               "StepFunctions.AWSStepFunctionsException": "Dr.AwsRejected",
               "StepFunctions.ThrottlingException": "Dr.Throttled",
               "StepFunctions.ExecutionLimitExceeded": "Dr.Throttled",
               "StepFunctions.ExecutionLimitExceededException": "Dr.Throttled",
               "StepFunctions.SdkClientException": "Dr.AwsUnreachable",
               "Sfn.SdkClientException": "Dr.AwsUnreachable", "Sfn.ThrottlingException": "Dr.Throttled",
               "Sfn.ExecutionDoesNotExistException": "Dr.AwsRejected"}
# Alerts about these are warnings: nothing is wrong with the installation.
WARNINGS = ("Dr.OperationInProgress", "Dr.EmergencyStopActive", "Dr.FreezeWindow", "Dr.ApprovalRequired",
            "Dr.PreCheckFailed", "Dr.BlastRadiusExceeded", "Dr.FaultImpossible", "Dr.TargetMissing", "Dr.TargetNotAllowed",
            "Dr.RollbackMissing")
# What a task that waits for a token adds to its integration's name.
TOKEN = ".waitForTaskToken"
READS = re.compile(r":(Describe|Get|List|ConditionCheck|Head)")


def load(path: Path):
    return json.loads(path.read_text())


def error_classes() -> dict[str, str]:
    """Name to class ("retry", "terminal", "operator"), as docs/errors.md has them from the enum."""
    rows = re.findall(r"^\| `(Dr\.\w+)` \| [^|]* \| (\w+) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    return dict(rows)


@dataclasses.dataclass
class Case:
    """One thing that happens to one state of one machine, and what must come of it."""

    machine: str
    state: str
    way: str
    road: dict
    end: dict
    orders: list[dict]
    injected: str | None = None
    """The name that the record must show, where the end says `{injected}`."""
    kills: bool = False

    @property
    def name(self) -> str:
        return f"{self.machine}-{self.state}-{self.way}"

    @property
    def ends_in(self) -> str | None:
        """The error that the execution must end in."""
        return self.injected if self.end.get("error") == "{injected}" else self.end.get("error")


@dataclasses.dataclass
class Result:
    """How a case went: what was found wrong, how long it took, which states it entered, what it ended in."""

    findings: list[str]
    seconds: float = 0.0
    entered: set[str] = dataclasses.field(default_factory=set)
    error: str | None = None


class Description:
    """A machine's description, with its definition."""

    def __init__(self, path: Path):
        self.name = path.stem
        self.told = load(path)
        self.output = self.told["machine"]
        definition = load(ROOT / "stepfunctions" / f"{self.name}.asl.json")
        self.states = dict(_walk(definition["States"]))
        self.tasks = {name: state for name, state in self.states.items() if state["Type"] == "Task"}

    def faults(self) -> list[str]:
        """What the description lacks, or says of states that are not there."""
        told, found = self.told["states"], []
        found += [f"{self.name}: the state {name} is not described" for name in self.tasks if name not in told]
        found += [f"{self.name}: there is no Task {name}" for name in told if name not in self.tasks]
        for name, state in told.items():
            if state["road"] not in self.told["roads"]:
                found.append(f"{self.name}: {name} is on the road {state['road']!r}, which is not there")
            if state["fails"] not in self.told["ends"]:
                found.append(f"{self.name}: {name} fails to the end {state['fails']!r}, which is not there")
        return found


def descriptions() -> list[Description]:
    return [Description(path) for path in sorted((SCENARIOS / "machines").glob("*.json"))]


def _walk(states: dict):
    for name, state in states.items():
        yield name, state
        for inner in [state.get("ItemProcessor"), *state.get("Branches", [])]:
            if inner:
                yield from _walk(inner["States"])


def _raisable(state: dict, raises: dict, classes: dict[str, str]) -> dict[str, list[str]]:
    """The errors that a Task can raise, by class."""
    arguments = state.get("Arguments", {})
    resource = state["Resource"].removeprefix("arn:aws:states:::").removesuffix(TOKEN)
    if resource != "lambda:invoke":
        known = raises["integrations"][resource]
        return {"retry": known["retry"], "terminal": known["terminal"], "operator": []}
    function = re.sub(r"(?<!^)(?=[A-Z])", "_", arguments["FunctionName"][2:-len("FunctionArn}")]).lower()
    [action] = arguments["Payload"]
    names = [*raises["functions"][function][action], *raises["functions"]["every"]]
    return {kind: [name for name in names if classes[name] == kind] for kind in ("retry", "terminal", "operator")}


def cases(full: bool) -> list[Case]:
    """Every case, or the covering subset that README.md describes."""
    raises, classes, made = load(SCENARIOS / "raises.json"), error_classes(), []
    turn = itertools.count()
    for description in descriptions():
        roads, ends = description.told["roads"], description.told["ends"]
        for name, state in description.tasks.items():
            told = description.told["states"].get(name)
            if told is None:
                continue
            road = roads[told["road"]]
            recovers, fails = ends[road["ends"]], ends[told["fails"]]
            errors = _raisable(state, raises, classes)
            here = next(turn)

            def some(names, offset=here):
                """All names in the full matrix; in the subset one, another one at each state."""
                return names if full or not names else [names[offset % len(names)]]

            def case(way, end, *effects, injected=None, kills=False, count=1,
                     description=description, name=name, road=road, told=told):
                first = told.get("attempt", 1)
                orders = [{"state": name, "attempt": first + at, "count": count, "effect": effect}
                          for at, effect in enumerate(effects)]
                made.append(Case(description.name, name, way, road, end, orders,
                                 RECORDED_AS.get(injected, injected), kills))

            def raising(error):
                return {"raise": {"error": error, "cause": json.dumps(
                    {"errorType": error, "errorMessage": f"{error}, ordered by a test"})}}

            is_function = state["Resource"].removesuffix(TOKEN).endswith("lambda:invoke")
            # Where a token is waited for, a timeout is the end of the wait, and no trouble of the service.
            of_services = [error for error in SERVICE_ERRORS
                           if error != "States.Timeout" or not state["Resource"].endswith(TOKEN)]
            for error in some(errors["retry"]):
                case(f"{error}-once", recovers, raising(error))
            for error in some([*errors["retry"], *(of_services if is_function else [])]):
                case(f"{error}-always", fails, raising(error), injected=error, count=0)
            for kind in ("terminal", "operator"):
                for error in some(errors[kind]):
                    case(f"{error}-{kind}", fails, raising(error), injected=error, count=0)
            case("twice", recovers, {"twice": True})
            case("stopped", STOPPED, {"stop": True})
            if is_function:
                case("service-errors-in-a-row", recovers, *map(raising, of_services))
                case("killed-in-the-middle", recovers, {"killAtCall": 1}, kills=True)
                for error in some([error for error in ("Lambda.Unknown", "States.Timeout") if error in of_services]):
                    case(f"answer-lost-to-{error}", recovers, {"lose": {"error": error}})
            elif errors["retry"]:
                case("answer-lost", recovers, {"lose": {"error": errors["retry"][0]}})
            else:
                case("answer-lost", fails, {"lose": {"error": "States.Timeout"}}, injected="States.Timeout")
    return made


class Alerts:
    """Takes alerts off the queues and keeps them."""

    def __init__(self, stage: Stage):
        self._stage, self._lock, self._taken = stage, threading.Lock(), []

    def containing(self, text: str) -> set[str]:
        """The topics on which something was said about an execution, an instance, a snapshot so far."""
        with self._lock:
            self._taken += [(topic, alert["message"]) for topic in TOPICS for alert in self._stage.alerts(topic)]
            return {topic for topic, message in self._taken if text in message}


class Lane:
    """A database with what the roads need of it; cases on it run one after the other, so each is the second start
    after the one before it."""

    def __init__(self, stage: Stage, number: int):
        self.stage, self.name = stage, f"lane-{number}"
        # Whose locks were due to be left: they stay until the next operation takes them over.
        self.left_by: set[str] = set()
        self.function = f"{self.name}-target"
        self.locks = (f"lock#{self.name}", f"lock#fleet:{self.name}", f"lock#experiment:{self.name}",
                      f"lock#chaos:function:{stage.cloud.region}:{self.function}")
        create_function(stage, self.function)
        database = stage.create_database(self.name, Tags=[{"Key": "lane", "Value": self.name}, MAY_BE_HARMED])
        database.sql("create table item (id int primary key, name text)",
                     "insert into item select n, 'item ' || n from generate_series(1, 500) n", "checkpoint")
        rds = stage.cloud.client("rds")
        for snapshot in ("whole", "damaged"):
            rds.create_db_snapshot(DBInstanceIdentifier=self.name, DBSnapshotIdentifier=f"{self.name}-{snapshot}")
            until(f"{self.name}-{snapshot} available", lambda which=snapshot: rds.describe_db_snapshots(
                DBSnapshotIdentifier=f"{self.name}-{which}")["DBSnapshots"][0]["Status"] == "available")
        # As a backup in another Region would have left its copy here, proven.
        own = {"role": "copy", "operation-id": "backup-0000000000000000", "database": self.name, "proof": "proven",
               "proof-level": "quick", "proven-in": stage.cloud.region}
        rds.create_db_snapshot(
            DBInstanceIdentifier=self.name, DBSnapshotIdentifier=f"lifeboat-{self.name}-own",
            Tags=[{"Key": f"lifeboat:{key}", "Value": value} for key, value in own.items()])
        until(f"lifeboat-{self.name}-own available", lambda: rds.describe_db_snapshots(
            DBSnapshotIdentifier=f"lifeboat-{self.name}-own")["DBSnapshots"][0]["Status"] == "available")
        stage.cloud.control("damage", {"region": stage.cloud.region, "snapshot": f"{self.name}-damaged",
                                       "database": "app", "kind": {"corruptIndex": {"index": "public.item_pkey"}}})

    def fill(self, value):
        """Puts the lane's own things in the place of `{database}` and the like."""
        named = {"{database}": self.name, "{function}": self.function, "{snapshot}": f"{self.name}-whole",
                 "{damaged snapshot}": f"{self.name}-damaged",
                 "{missing key}": f"arn:aws:kms:eu-west-1:{self.stage.cloud.account}:key/"
                                  "00000000-0000-0000-0000-000000000000"}
        if isinstance(value, dict):
            return {name: self.fill(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner) for inner in value]
        if isinstance(value, str):
            value = value.replace("{rds}", self.stage.cloud.rds_endpoint)
            return named.get(value, value)
        return value


class Harness:
    """Runs cases on several lanes at once."""

    def __init__(self, stage: Stage, lanes: int):
        self.stage, self.alerts = stage, Alerts(stage)
        self._calls: dict[tuple[str, str], list[dict]] = {}
        self._machines = {description.name: description for description in descriptions()}
        self.lanes = [Lane(stage, number) for number in range(lanes)]

    def run(self, all_cases: list[Case]) -> dict[str, Result]:
        """Runs the cases; a lane takes the next one as soon as it is free. At the end each lane runs undisturbed.

        Machines whose descriptions ask for another pace come after the others."""
        def pace(name):
            return self._machines[name].told.get("waitScale")
        results: dict[str, Result] = {}
        for wait_scale in sorted({pace(name) for name in self._machines}, key=lambda scale: scale or 0):
            if wait_scale:
                self.stage.cloud.set_wait_scale(wait_scale)
            machines = [description for name, description in self._machines.items() if pace(name) == wait_scale]
            results |= self._run([case for case in all_cases if pace(case.machine) == wait_scale], machines)
        return results

    def _run(self, all_cases: list[Case], machines: list[Description]) -> dict[str, Result]:
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for case in all_cases:
            waiting.put(case)
        results: dict[str, Result] = {}

        def work(lane: Lane):
            while True:
                try:
                    case = waiting.get_nowait()
                except queue.Empty:
                    break
                results[case.name] = self._guarded(lane, case)
            for description in machines:
                road_name, road = next(iter(description.told["roads"].items()))
                case = Case(description.name, lane.name, f"undisturbed-{road_name}", road,
                            description.told["ends"][road["ends"]], [])
                results[case.name] = self._guarded(lane, case)

        threads = [threading.Thread(target=work, args=(lane,)) for lane in self.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def _guarded(self, lane: Lane, case: Case) -> Result:
        begun = time.monotonic()
        try:
            result = self._one(lane, case)
        except Exception as error:
            result = Result([f"{type(error).__name__}: {error}"])
        result.seconds = time.monotonic() - begun
        return result

    def _orders(self, lane: Lane, case: Case, name: str) -> list[dict]:
        orders = [{"execution": name, **lane.fill(order)} for order in [*case.road.get("orders", []), *case.orders]]
        if case.kills:
            orders[-1]["effect"] = {"killAtCall": self._fatal_call(lane, case)}
        for order in orders:
            self.stage.cloud.order("orders", order)
        return orders

    def _fatal_call(self, lane: Lane, case: Case) -> int:
        """The last call of the state that changes something, else its first: there the process is killed."""
        key = (case.machine, json.dumps(case.road, sort_keys=True))
        if key not in self._calls:
            undisturbed = Case(case.machine, case.state, "undisturbed", case.road, {}, [])
            execution = self._start(lane, undisturbed, f"look-{uuid.uuid4().hex[:10]}")
            self.stage.finish(execution, PATIENCE)
            self._calls[key] = self.stage.cloud.order(f"calls?execution={execution}")
            self.clear(lane, execution)
        calls = [call for call in self._calls[key] if call["state"] == case.state and call["attempt"] == 1]
        if not calls:
            raise StageError(f"{case.state} was not reached on its road, or its function called nothing")
        changing = [call["call"] for call in calls if not all(READS.search(action) for action in call["actions"])]
        return max(changing, default=calls[0]["call"])

    def _start(self, lane: Lane, case: Case, name: str) -> str:
        for order in case.road.get("orders", []) if case.way == "undisturbed" else []:
            self.stage.cloud.order("orders", {"execution": name, **lane.fill(order)})
        return self.stage.start(self._machines[case.machine].output, lane.fill(case.road["input"]), name)

    def _one(self, lane: Lane, case: Case) -> Result:
        name = f"{re.sub('[^A-Za-z0-9]', '-', case.way)[:40]}-{uuid.uuid4().hex[:10]}"
        self._orders(lane, case, name)
        execution = self._start(lane, case, name)
        if "removes" in case.road:
            self._remove(lane, execution, case.road["removes"])
        ended = self.stage.finish(execution, PATIENCE)
        until("the attempts with orders are over", lambda: all(
            order["finished"] == order["carried"] for order in self.stage.cloud.order(f"orders?execution={name}")))
        history = self._history(execution)
        entered = {event["stateEnteredEventDetails"]["name"] for event in history
                   if "stateEnteredEventDetails" in event}
        findings = [f"the order for {order['state']} at attempt {order['attempt']} was never carried out"
                    for order in self.stage.cloud.order(f"orders?execution={name}") if not order["carried"]]
        self.stage.cloud.order(f"orders?execution={name}", method="DELETE")
        findings += self._after(lane, case, execution, ended)
        self.clear(lane, execution)
        if findings:
            findings.append(f"{execution} ended {ended['status']} {ended.get('error', '')}; it entered "
                            f"{', '.join(sorted(entered))}; tasks failed with {_failures(history)}")
        return Result(findings, entered=entered, error=ended.get("error"))

    def _remove(self, lane: Lane, execution: str, when: str) -> None:
        """Takes the lane's function away as soon as a state is entered, and ends the experiment."""
        until(f"{when} is entered", lambda: any(
            event.get("stateEnteredEventDetails", {}).get("name") == when for event in self._history(execution)))
        self.stage.cloud.client("lambda").delete_function(FunctionName=lane.function)
        operation = self.record(execution)["operationId"]
        self.stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "grace", "reason": "it is gone"}})

    def _history(self, execution: str) -> list[dict]:
        """The events of an execution and of the children of its distributed Maps."""
        states = self.stage.cloud.client("stepfunctions")
        children = [
            child["executionArn"] for run in states.list_map_runs(executionArn=execution)["mapRuns"]
            for page in states.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"])
            for child in page["executions"]]
        return [event for one in (execution, *children) for event in self.stage.history(one)]

    # What must be true afterwards

    def _after(self, lane: Lane, case: Case, execution: str, ended: dict) -> list[str]:
        end, found = case.end, []
        error = case.ends_in
        if (ended["status"], ended.get("error")) != (end["status"], error):
            found.append(f"it ended {ended['status']} {ended.get('error')}, and {end['status']} {error} was due")
        record = self.record(execution)
        status = record and record["status"]
        if end.get("leased"):
            # At the very end, or at the very beginning, the record may be final already, or not be there yet.
            status = "running"
        if status != end["record"]:
            found.append(f"the record is {status}, and {end['record']} was due")
        elif end["record"] == "failed":
            name = record["error"]["name"]
            if name != error:
                found.append(f"the record says {name}, and {error} was due")
        found += self._alerts_due(case, execution, error)
        found += self._leftovers_due(lane, end)
        found += self.copies(record)
        return found

    def record(self, execution: str) -> dict | None:
        """The operation's record: of the kind that has one for this execution."""
        for kind in KINDS:
            found = self.stage.cloud.client("dynamodb").get_item(
                TableName=self.stage.outputs["StateTableName"], ConsistentRead=True,
                Key={"operationId": {"S": operation_id(kind, execution)}})
            if "Item" in found:
                return plain({"M": found["Item"]})
        return None

    def _alerts_due(self, case: Case, execution: str, error: str | None) -> list[str]:
        due = [topic if topic != "{of the error}" else "Warning" if error in WARNINGS else "Critical"
               for topic in case.end["alerts"]]
        deadline = time.monotonic() + 3
        while True:
            sent = sorted(self.alerts.containing(f"Execution: {execution}"))
            if sent == sorted(due) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if case.end is STOPPED and len(sent) <= 1:
            return []  # It was sent, or on its way, when the execution was stopped.
        return [] if sent == sorted(due) else [f"alerts went to {sent or 'nobody'}, and {due or 'nobody'} was due"]

    def leftovers(self, lane: Lane) -> dict[str, str]:
        """What is there of the lane's operations that outlives none: instance, secret, lock, by their names."""
        found, cloud = {}, self.stage.cloud
        for instance in cloud.client("rds").describe_db_instances()["DBInstances"]:
            if _is_temporary(instance.get("TagList", []), lane):
                found["instance"] = instance["DBInstanceIdentifier"]
        for page in cloud.client("secretsmanager").get_paginator("list_secrets").paginate():
            for secret in page["SecretList"]:
                if "DeletedDate" not in secret and _is_temporary(secret.get("Tags", []), lane):
                    found["secret"] = secret["Name"]
        for lock, owner in self._lock_owners(lane).items():
            if owner not in lane.left_by:
                found["lock"] = lock
        return found

    def _lock_owners(self, lane: Lane) -> dict[str, str]:
        """Who holds the lock of the lane's database, and that of the fleet of its name."""
        table, found = self.stage.outputs["StateTableName"], {}
        for lock in lane.locks:
            answer = self.stage.cloud.client("dynamodb").get_item(
                TableName=table, Key={"operationId": {"S": lock}}, ConsistentRead=True)
            if "Item" in answer:
                found[lock] = answer["Item"]["owner"]["S"]
        return found

    def _leftovers_due(self, lane: Lane, end: dict) -> list[str]:
        due, found = set(end.get("leaves", [])), self.leftovers(lane)
        if "lock" in due or end.get("leased"):
            lane.left_by = set(self._lock_owners(lane).values())
        if end.get("leased"):
            return self._without_lease(found)
        return [] if set(found) == due else [f"left behind: {found}, and {sorted(due)} was due"]

    def _snapshots_of(self, lane: Lane) -> list[str]:
        """The backups that were taken of the lane's database: its own snapshots are not among them."""
        rds, found = self.stage.cloud.client("rds"), []
        for page in rds.get_paginator("describe_db_snapshots").paginate(DBInstanceIdentifier=lane.name):
            for snapshot in page["DBSnapshots"]:
                if {"Key": "lifeboat:role", "Value": "backup"} in snapshot["TagList"]:
                    found.append(snapshot["DBSnapshotIdentifier"])
        return found

    def _without_lease(self, found: dict[str, str]) -> list[str]:
        """What is left of a stopped execution carries a lease, by which it is found and called expired."""
        if "instance" not in found:
            return []
        [instance] = self.stage.cloud.client("rds").describe_db_instances(
            DBInstanceIdentifier=found["instance"])["DBInstances"]
        tags = {tag["Key"]: tag["Value"] for tag in instance["TagList"]}
        return [] if "lifeboat:expires-at" in tags else [f"{found['instance']} has no lease"]

    def copies(self, record: dict | None) -> list[str]:
        """A copy may only be of a snapshot that is proven, complete, and under its Region's key."""
        snapshot = ((record or {}).get("plan") or {}).get("snapshotId") if record and record["type"] == "backup" else None
        if not snapshot:
            return []
        proof, found = None, []
        for region in (self.stage.cloud.region, *TARGET_REGIONS):
            rds = self.stage.cloud.client("rds", region)
            try:
                [seen] = rds.describe_db_snapshots(DBSnapshotIdentifier=snapshot)["DBSnapshots"]
            except rds.exceptions.DBSnapshotNotFoundFault:
                continue
            tags = {tag["Key"]: tag["Value"] for tag in seen["TagList"]}
            if region == self.stage.cloud.region:
                proof = tags.get("lifeboat:proof")
                if proof == "proven" and record["status"] == "failed" and "proof" not in record["checkpoints"]:
                    found.append(f"{snapshot} is labelled proven without a proof on record")
            elif proof != "proven":
                found.append(f"{snapshot} has a copy in {region} and is {proof}")
            elif seen["Status"] != "available" or seen["KmsKeyId"] != self.stage.keys[region]:
                found.append(f"the copy of {snapshot} in {region} is {seen['Status']} under {seen['KmsKeyId']}")
        return found

    def clear(self, lane: Lane, execution: str) -> None:
        """Removes what was due to be left, but for locks: the next case begins from nothing but the lane."""
        record = self.record(execution) or {}
        if record.get("type") == "chaos":
            self._end_experiment(lane, record["operationId"])
        plan = record.get("plan") or {}
        taken = [plan["snapshotId"]] if plan.get("snapshotId") and not plan.get("target") else []
        if record.get("type") == "fleet":
            taken = self._snapshots_of(lane)
        for region in (*TARGET_REGIONS, self.stage.cloud.region):
            rds = self.stage.cloud.client("rds", region)
            for snapshot in taken:
                try:
                    rds.delete_db_snapshot(DBSnapshotIdentifier=snapshot)
                except (rds.exceptions.DBSnapshotNotFoundFault, rds.exceptions.InvalidDBSnapshotStateFault):
                    continue
        left = self.leftovers(lane)
        if "instance" in left:
            rds = self.stage.cloud.client("rds")
            until(f"{left['instance']} can be deleted", lambda: _deleted(rds, left["instance"]), 30)
            until("the instance is gone", lambda: "instance" not in self.leftovers(lane), 30)
        if "secret" in self.leftovers(lane):
            self.stage.cloud.client("secretsmanager").delete_secret(
                SecretId=left.get("secret") or self.leftovers(lane)["secret"], ForceDeleteWithoutRecovery=True)


    def _end_experiment(self, lane: Lane, operation: str) -> None:
        """The watchdog takes over, as it would after the lease, and everything is as it was before."""
        functions = self.stage.cloud.client("lambda")
        try:
            functions.get_function(FunctionName=lane.function)
        except functions.exceptions.ResourceNotFoundException:
            create_function(self.stage, lane.function)
        journal = self.stage.cloud.client("dynamodb").get_item(
            TableName=self.stage.outputs["StateTableName"], ConsistentRead=True,
            Key={"operationId": {"S": f"journal#{operation}"}}).get("Item")
        if journal and journal["status"]["S"] != "ended":
            let_the_lease_run_out(self.stage, operation)
            watched_to_the_end(self.stage, operation)
        left = functions.get_function_concurrency(FunctionName=lane.function).get("ReservedConcurrentExecutions")
        if left is not None:
            raise StageError(f"{lane.function} was not put back: {left} executions are reserved for it")


def _deleted(rds, instance: str) -> bool:
    try:
        rds.delete_db_instance(DBInstanceIdentifier=instance, SkipFinalSnapshot=True)
    except rds.exceptions.DBInstanceNotFoundFault:
        return True
    except rds.exceptions.InvalidDBInstanceStateFault as error:
        # Being created, or being deleted already.
        return "deleting" in str(error)
    return True


def operation_id(kind: str, execution: str) -> str:
    """As `OperationId::of_execution` makes it."""
    return f"{kind}-{hashlib.sha256(execution.encode()).hexdigest()[:16]}"


def _is_temporary(tags: list[dict], lane: Lane) -> bool:
    told = {tag["Key"]: tag["Value"] for tag in tags}
    return told.get("lifeboat:role") == "temporary" and told.get("lifeboat:database") == lane.name


def _failures(history: list[dict]) -> str:
    return ", ".join(event["taskFailedEventDetails"]["error"] for event in history
                     if "taskFailedEventDetails" in event) or "nothing"

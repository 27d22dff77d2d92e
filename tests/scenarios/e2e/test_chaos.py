"""Every fault of the table, through the deployed stack with roles enforced: it is injected into real resources, seen, and
put back; and a database under load says how long it was away and whether it lost anything.
"""

import json
import re
import subprocess
import threading

import pytest
from deployment import ROOT
from experiments import (
    APPROVERS,
    Subjects,
    Watching,
    approve,
    calls_of,
    came_to,
    each,
    experiment,
    journal,
    operation_of,
    phase,
    report,
)
from stage import MAY_BE_HARMED, StageError, until

FAULTS = [
    "rds-failover", "rds-reboot", "rds-stop", "cluster-failover", "cluster-stop", "ec2-stop", "ec2-reboot", "ec2-terminate",
    "asg-suspend", "asg-capacity", "targets-deregister", "zone-drain", "security-group-detach", "security-group-isolate",
    "function-throttle"]
# A reboot does not show in what is described of an instance; that it was asked for does.
UNSEEN = {"ec2-reboot"}
# Time enough to do harm while it goes on, also on a busy machine: milliseconds.
LASTING = {"duration": 40_000}


@pytest.fixture(scope="module", autouse=True)
def unhurried(stage):
    """What databases do takes long enough to be seen from outside, as it does on AWS."""
    stage.cloud.control("config", {"statusMs": 1500})
    yield
    stage.cloud.control("config", {"statusMs": 300})


@pytest.fixture(scope="module")
def carried_out(stage):
    """All faults at once, each on resources of its own: what each experiment came to."""
    subjects = Subjects(stage)
    assert sorted(FAULTS) == sorted(subjects.names())

    def carry_out(name):
        subject = subjects.make(name)
        with Watching(subject) as watching:
            ended = stage.finish(stage.start("ChaosExperiment", subject.experiment()), 240)
        return subject, watching.differing(), ended
    return each(FAULTS, carry_out)


def test_no_fault_is_left_out():
    """But that of our own functions, which test_chaos_safety.py has."""
    told = re.search(r"fn name\(.*?\n    }\n", (ROOT / "shared" / "core" / "src" / "chaos" / "fault.rs").read_text(), re.DOTALL)
    assert sorted(re.findall(r'=> "(.*?)"', told[0])) == sorted([*FAULTS, "region-unreachable"])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_injected_seen_and_put_back(stage, carried_out, fault):
    subject, seen, ended = came_to(carried_out, fault)
    assert ended["status"] == "SUCCEEDED", ended
    output = ended["output"]
    assert (output["status"], output["rollbackExecuted"]) == ("completed", True), output
    assert seen or fault in UNSEEN, "nothing was broken"
    assert subject.as_recorded(), (subject.look(), subject.recorded)
    actions = [action for call in calls_of(stage, ended["executionArn"]) for action in call["actions"]]
    assert subject.call in actions
    operation = stage.operation(ended["executionArn"])
    assert operation["status"] == "succeeded"
    whole = report(stage, operation["operationId"])
    entry = whole["journal"]["entries"][0]
    assert entry["status"] == "put-back" and entry["step"]["fault"]["fault"] == fault
    # Its undo was written down before the change: the write comes first among what was called.
    in_order = [action for call in calls_of(stage, ended["executionArn"]) if call["state"] == "InjectFaults"
                for action in call["actions"]]
    assert "dynamodb:PutItem" in in_order[:in_order.index(subject.call)]


def test_a_region_is_broken_together_and_put_back_last_first(stage):
    subjects = Subjects(stage)
    parts = [subjects.make(name) for name in ("rds-reboot", "asg-suspend", "targets-deregister", "function-throttle")]
    targets = {kind: names for part in parts for kind, names in part.targets.items()}
    request = experiment("regional", {**targets, "regions": [stage.cloud.region]},
                         [fault for part in parts for fault in part.faults], id="a-region")
    refused = stage.run("ChaosExperiment", {**request, "requestedBy": None})
    assert (refused["status"], refused["error"]) == ("FAILED", "Dr.ApprovalRequired"), refused
    assert all(part.as_recorded() for part in parts)
    ended = stage.finish(approved(stage, request), 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "completed", ended
    until("everything is as it was", lambda: all(part.as_recorded() for part in parts))
    whole = report(stage, ended["output"]["operationId"])
    begun = [entry["begunAt"] for entry in whole["journal"]["entries"]]
    # When it was asked for; of a reboot nothing is.
    undone = [entry["lastAttempt"] for entry in whole["journal"]["entries"] if entry["attempts"]]
    assert begun == sorted(begun) and undone == sorted(undone, reverse=True), whole["journal"]["entries"]
    assert len(undone) == 3
    assert whole["journal"]["approvedBy"] == ["grace"]


def approved(stage, request):
    """Starts an experiment and approves it as soon as it asks."""
    execution = stage.start("ChaosExperiment", request)
    operation = operation_of(stage, execution)
    until("it asks", lambda: phase(stage, operation) == "awaiting-approval")
    answer, error = approve(stage, operation, journal(stage, operation)["planHash"], "grace", APPROVERS["grace"])
    assert error is None and answer["approved"], (answer, error)
    return execution


@pytest.fixture(scope="module")
def busy(stage):
    """A Multi-AZ database, written to all the while by a client that comes back when it is cut off, and what the client
    was told was committed."""
    database = stage.create_database("chaos-orders", MultiAZ=True, Tags=[MAY_BE_HARMED])
    database.sql("create table settled as select n, md5(n::text) as text from generate_series(1, 20000) n",
                 "create table purchase (n int primary key)")
    over, acknowledged = threading.Event(), []

    def buy():
        number = 0
        while not over.is_set():
            number += 1
            done = subprocess.run(database.tool("psql", "-XAtq", "-c", f"insert into purchase values ({number})"),
                                  env={**database.environment(), "PGCONNECT_TIMEOUT": "2"}, capture_output=True, check=False)
            if done.returncode == 0:
                acknowledged.append(number)
    thread = threading.Thread(target=buy, daemon=True)
    thread.start()
    yield database, acknowledged
    over.set()
    thread.join()


def test_a_failover_under_load_is_measured_and_loses_nothing(stage, busy):
    database, acknowledged = busy
    digest = "select md5(string_agg(t::text, ',' order by n)) from settled t"
    before, seen_before = database.sql(digest), len(acknowledged)
    intact = {"probe": "data-intact", "database": database.name}
    request = experiment("database", {"rdsInstances": [database.name]}, id="under-load", steadyState=[intact],
                         parameters=LASTING, postChecks=[intact], dataCheck={"database": database.name, "tolerateUntold": False})
    session = subprocess.Popen(database.tool("psql", "-XAtq", "-c", "select pg_sleep(600)"), env=database.environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = stage.run("ChaosExperiment", request, 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "completed", ended
    assert session.wait(30) != 0, "clients noticed nothing"
    metrics = ended["output"]["metrics"]
    assert metrics["dataIntegrity"] is True
    # It was away for a while, and came back by itself while the experiment went on.
    assert 0 < metrics["recoveryTime"] < LASTING["duration"] and metrics["outage"] is not None, metrics
    whole = report(stage, ended["output"]["operationId"])
    assert [finding["verdict"] for finding in whole["before"]] == ["passed"]
    assert whole["journal"]["disturbedAt"] < whole["journal"]["restoredAt"]
    assert {finding["verdict"] for finding in whole["after"]} == {"passed"}
    # Also its rows say so, those byte for byte that were there before.
    assert (ended["output"]["data"]["verdict"], whole["data"]["verdict"]) == ("intact", "intact"), whole["data"]
    assert whole["data"]["comparison"]["provenRows"] >= 20_000 + seen_before
    until("clients are back", lambda: len(acknowledged) > seen_before + 10)
    told = list(acknowledged)
    kept = {int(number) for number in database.sql("select n from purchase").split()}
    assert set(told) <= kept, "what was acknowledged is lost"
    assert database.sql(digest) == before
    until("it is counted", lambda: counted(stage, "dr_operation_total", operation="chaos_database", status="completed"))
    seconds = [one["dr_recovery_time_seconds"] for one in counted(stage, "dr_recovery_time_seconds", operation="chaos_database")]
    assert any(abs(one - metrics["recoveryTime"] / 1000) < 0.01 for one in seconds), (seconds, metrics)


def counted(stage, metric: str, **dimensions: str) -> list[dict]:
    """The lines of the function's log that CloudWatch makes this metric of."""
    pages = stage.cloud.client("logs").get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{stage.outputs['ChaosRunnerFunctionName']}")
    lines = [event["message"] for page in pages for event in page["events"] if metric in event["message"]]
    told = [json.loads(line) for line in lines if line.lstrip().startswith("{")]
    return [one for one in told if metric in one and dimensions.items() <= one.items()]


def test_a_database_that_lost_what_it_acknowledged_is_found_out(stage, busy):
    """A row of the ledger goes while the database is away: the report says so."""
    database, _ = busy
    intact = {"probe": "data-intact", "database": database.name}
    request = experiment("database", {"rdsInstances": [database.name]}, [{"fault": "rds-reboot"}], id="a-loss",
                         steadyState=[intact], postChecks=[intact], parameters={**LASTING, "recoverySeconds": 10})
    execution = stage.start("ChaosExperiment", request)
    operation = until("it runs", lambda: stage.operation(execution))["operationId"]
    until("its faults are in", lambda: (stage.invoke("ChaosRunner", {"status": {"operationId": operation}})[0] or {}).get(
        "phase") == "observing")
    until("a beat is there", lambda: beat(database, operation) >= 2)
    database.sql(f"delete from lifeboat.heartbeat where operation_id = '{operation}'")
    ended = stage.finish(execution, 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "deviated", ended
    assert ended["output"]["metrics"]["dataIntegrity"] is False
    assert any("NOT found intact" in alert["message"] for alert in stage.alerts("Warning"))


def lose_a_row(stage, database, table):
    """A row goes as by a fault of the storage: no transaction deleted it."""
    stage.as_superuser(
        database, "create extension if not exists pg_surgery",
        f"select heap_force_kill('{table}', array[(select ctid from {table} order by n limit 1)])")


def test_rows_that_nobody_deleted_and_that_are_gone_are_named(stage, busy):
    """The database goes on serving behind a function that is throttled; its counters tell what was deleted."""
    database, _ = busy
    subject = Subjects(stage).make("function-throttle")
    request = subject.experiment(id="a-lost-row", dataCheck={"database": database.name}, parameters=LASTING)
    execution = stage.start("ChaosExperiment", request)
    operation = operation_of(stage, execution)
    until("its faults are in", lambda: phase(stage, operation) == "observing")
    lose_a_row(stage, database, "settled")
    ended = stage.finish(execution, 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "deviated", ended
    assert ended["output"]["metrics"]["dataIntegrity"] is False
    [lost] = report(stage, operation)["data"]["comparison"]["different"]
    assert lost["table"].endswith("settled") and lost["framedRows"] - lost["rows"] == 1, lost
    assert lost["slices"], "nobody is told where"
    assert any("settled (1 of 20000 rows are gone)" in alert["message"] for alert in stage.alerts("Warning"))


def test_where_nothing_tells_a_loss_from_a_deletion_the_report_says_that(stage, busy):
    """A restart ends the counters: whoever knows that nothing is deleted meanwhile asks for no tolerance."""
    database, _ = busy
    database.sql("create table audit as select n from generate_series(1, 100) n")
    check = {"database": database.name, "tolerateUntold": False}
    request = experiment("database", {"rdsInstances": [database.name]}, [{"fault": "rds-reboot"}], id="an-untold-row",
                         dataCheck=check, parameters=LASTING)
    execution = stage.start("ChaosExperiment", request)
    operation = operation_of(stage, execution)
    until("its faults are in", lambda: phase(stage, operation) == "observing")
    until("the database is back", lambda: answers(database))
    lose_a_row(stage, database, "audit")
    ended = stage.finish(execution, 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "deviated", ended
    assert ended["output"]["metrics"]["dataIntegrity"] is None
    found = report(stage, operation)["data"]
    assert found["verdict"] == "untold" and found["comparison"]["counted"] is False
    assert [one["table"].rpartition(".")[2] for one in found["comparison"]["untold"]] == ["audit"], found


def answers(database) -> bool:
    try:
        return database.sql("select 1") == "1"
    except StageError:
        return False


def test_what_cannot_be_compared_is_refused_before_anything_is_touched(stage):
    subject = Subjects(stage).make("function-throttle")
    maria = stage.create_database("chaos-till", Engine="mariadb", EngineVersion="10.11", DBName="shop",
                                  Tags=[MAY_BE_HARMED])
    for name, error in ((maria.name, "Dr.EngineUnsupported"), ("no-such-database", "Dr.DatabaseMissing")):
        ended = stage.run("ChaosExperiment", subject.experiment(dataCheck={"database": name}))
        assert (ended["status"], ended["error"]) == ("FAILED", error), ended
    assert subject.as_recorded()


def beat(database, operation) -> int:
    try:
        return int(database.sql(f"select beat from lifeboat.heartbeat where operation_id = '{operation}'") or 0)
    except StageError:
        return 0

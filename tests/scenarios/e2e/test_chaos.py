"""Every fault of the table, through the deployed stack with roles enforced: it is injected into real resources, seen, and
put back; and a database under load says how long it was away and whether it lost anything.
"""

import subprocess
import threading

import pytest
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


@pytest.fixture(scope="module")
def carried_out(stage):
    """All faults at once, each on resources of its own: what each experiment came to."""
    subjects = Subjects(stage)
    assert sorted(FAULTS) == sorted(subjects.names())

    def carry_out(name):
        subject = subjects.make(name)
        with Watching(subject) as watching:
            ended = stage.finish(stage.start("ChaosExperiment", subject.experiment()), 240)
        return subject, watching.seen, ended
    return each(FAULTS, carry_out)


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
    over, acknowledged, refused = threading.Event(), [], []

    def buy():
        number = 0
        while not over.is_set():
            number += 1
            done = subprocess.run(database.tool("psql", "-XAtq", "-c", f"insert into purchase values ({number})"),
                                  env={**database.environment(), "PGCONNECT_TIMEOUT": "2"}, capture_output=True, check=False)
            (refused if done.returncode else acknowledged).append(number)
    thread = threading.Thread(target=buy, daemon=True)
    thread.start()
    yield database, acknowledged, refused
    over.set()
    thread.join()


def test_a_failover_under_load_is_measured_and_loses_nothing(stage, busy):
    database, acknowledged, refused = busy
    digest = "select md5(string_agg(t::text, ',' order by n)) from settled t"
    before, seen_before = database.sql(digest), len(acknowledged)
    intact = {"probe": "data-intact", "database": database.name}
    request = experiment("database", {"rdsInstances": [database.name]}, id="under-load", steadyState=[intact],
                         postChecks=[intact])
    ended = stage.run("ChaosExperiment", request, 240)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["status"] == "completed", ended
    metrics = ended["output"]["metrics"]
    assert metrics["dataIntegrity"] is True
    # It was away for a while, and came back by itself while the experiment went on.
    assert 0 < metrics["recoveryTime"] < 10_000 and metrics["outage"] is not None, metrics
    assert refused, "clients noticed nothing"
    whole = report(stage, ended["output"]["operationId"])
    assert [finding["verdict"] for finding in whole["before"]] == ["passed"]
    assert whole["during"] and {finding["verdict"] for finding in whole["after"]} == {"passed"}
    until("clients are back", lambda: len(acknowledged) > seen_before + 10)
    told = list(acknowledged)
    kept = {int(number) for number in database.sql("select n from purchase").split()}
    assert set(told) <= kept, "what was acknowledged is lost"
    assert database.sql(digest) == before


def test_a_database_that_lost_what_it_acknowledged_is_found_out(stage, busy):
    """A row of the ledger goes while the database is away: the report says so."""
    database, _, _ = busy
    intact = {"probe": "data-intact", "database": database.name}
    request = experiment("database", {"rdsInstances": [database.name]}, [{"fault": "rds-reboot"}], id="a-loss",
                         steadyState=[intact], postChecks=[intact], parameters={"recoverySeconds": 10})
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


def beat(database, operation) -> int:
    try:
        return int(database.sql(f"select beat from lifeboat.heartbeat where operation_id = '{operation}'") or 0)
    except StageError:
        return 0

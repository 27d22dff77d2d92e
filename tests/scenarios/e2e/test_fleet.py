"""A fleet of 200 databases through the deployed stack, control plane only: the instances have no server behind them."""

import json
import threading
import time

import pytest
from stage import SECURITY_GROUP, SUBNET_GROUP, until

FLEET = 200
CONCURRENCY = 12
BACKUP = {"crossRegionBackup": False, "validation": {"depth": "quick"}, "tags": {"Purpose": "fleet-test"}}
RACES = {"statusMs": 20, "instanceQuota": 1_000, "snapshotQuota": 5_000}
USUAL = {"statusMs": 300, "instanceQuota": 40, "snapshotQuota": 100, "hollow": False}


def name(number):
    return f"fleet-{number:03}"


@pytest.fixture(scope="module")
def fleet(stage):
    """200 databases of the tier `many`, and some that must be left out."""
    rds = stage.cloud.client("rds")
    stage.cloud.control("config", {**RACES, "hollow": True})

    def create(identifier, **more):
        rds.create_db_instance(**{
            "DBInstanceIdentifier": identifier, "Engine": "postgres", "DBInstanceClass": "db.t4g.medium",
            "AllocatedStorage": 20, "MasterUsername": "dba", "MasterUserPassword": "not-a-secret-1", "DBName": "app",
            "StorageEncrypted": True, "KmsKeyId": stage.keys[stage.cloud.region], "BackupRetentionPeriod": 0,
            "DBSubnetGroupName": SUBNET_GROUP, "VpcSecurityGroupIds": [SECURITY_GROUP],
            "Tags": [{"Key": "Tier", "Value": "many"}], **more})
    names = [name(number) for number in range(FLEET)]
    for identifier in names:
        create(identifier)
    create("fleet-leased", Tags=[{"Key": "Tier", "Value": "many"}, {"Key": "lifeboat:role", "Value": "temporary"}])
    create("fleet-other", Tags=[{"Key": "Tier", "Value": "few"}])
    mine = [*names, "fleet-leased", "fleet-other"]

    def instances():
        pages = rds.get_paginator("describe_db_instances").paginate()
        return {one["DBInstanceIdentifier"]: one["DBInstanceStatus"] for page in pages for one in page["DBInstances"]}
    until("all of the fleet available", lambda: all(instances().get(one) == "available" for one in mine))
    yield names
    for identifier in mine:
        rds.delete_db_instance(DBInstanceIdentifier=identifier, SkipFinalSnapshot=True)
    until("all of the fleet gone", lambda: not set(mine) & set(instances()))
    # They would fill the quota that the tests after this one live under.
    for page in rds.get_paginator("describe_db_snapshots").paginate():
        for one in page["DBSnapshots"]:
            if one["DBInstanceIdentifier"] in mine:
                rds.delete_db_snapshot(DBSnapshotIdentifier=one["DBSnapshotIdentifier"])
    stage.cloud.control("config", USUAL)


class Watch:
    """Counts the backups that run at the same time, as Step Functions tells it, until the block ends."""

    def __init__(self, stage):
        self.most, self._stage, self._over = 0, stage, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        states = self._stage.cloud.client("stepfunctions")
        machine = self._stage.outputs["BackupOrchestrationArn"]
        while not self._over.is_set():
            running = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING", maxResults=1000)
            self.most = max(self.most, len(running["executions"]))
            self._over.wait(0.2)


def snapshots(stage):
    """The snapshots of the fleet's databases: how many each has."""
    found: dict[str, int] = {}
    pages = stage.cloud.client("rds").get_paginator("describe_db_snapshots").paginate()
    for one in (one for page in pages for one in page["DBSnapshots"]):
        found[one["DBInstanceIdentifier"]] = found.get(one["DBInstanceIdentifier"], 0) + 1
    return found


def request(**more):
    return {"fleet": "many", "selector": {"tag": {"key": "Tier", "value": "many"}}, "maxConcurrency": CONCURRENCY,
            "backup": BACKUP, **more}


def test_two_hundred_databases_are_backed_up_within_the_cap_and_summed_up_once(stage, fleet):
    broken = {"error": {"code": "KMSKeyNotAccessibleFault", "message": "no key", "status": 400}}
    stage.cloud.control("faults", {"action": "CreateDBSnapshot", "nth": 20, "count": 3, "effect": broken})
    began = time.monotonic()
    with Watch(stage) as watch:
        ended = stage.run("FleetBackup", request(tolerated={"percent": 5}), seconds=600)
    took = time.monotonic() - began
    print(f"{FLEET} databases in {took:.0f} s, at most {watch.most} at a time")
    assert ended["status"] == "SUCCEEDED", ended
    summary = ended["output"]
    assert summary["byError"] == {"Dr.KeyNotAccessible": 3}, summary["failures"]
    assert (summary["total"], summary["succeeded"], summary["failed"]) == (FLEET, FLEET - 3, 3)
    assert (summary["outcome"], summary["severity"], summary["tolerated"]) == ("incomplete", "warning", 10)
    assert len(summary["failures"]) == 3
    assert summary["skipped"] == 1 and len(summary["slowest"]) == 5
    assert 1 < watch.most <= CONCURRENCY

    operation = stage.operation(ended["executionArn"])
    assert (operation["status"], operation["resourceId"]) == ("partial", "fleet:many")
    # The tests' databases have no backups that are fresh and proven: what it says is not asserted, but that it looked.
    assert sum(summary["health"]["counts"].values()) > 0, summary["health"]
    assert stage.report(summary["health"]["report"])["status"] == summary["health"]["status"]
    report = stage.report(summary["reportKey"])
    assert [entry["database"] for entry in report["databases"]] == fleet
    assert report["skipped"] == [{"database": "fleet-leased", "reason": "temporary"}]
    made = snapshots(stage)
    assert sum(made.get(one, 0) for one in fleet) == FLEET - 3
    assert {"fleet-leased", "fleet-other"} & set(made) == set()
    told = [alert for topic in ("Critical", "Warning", "Info") for alert in stage.alerts(topic)]
    [told_of_it] = [alert for alert in told if "fleet many" in alert["subject"]]
    assert f"Health afterwards: {summary['health']['status']}" in told_of_it["message"]
    assert len([alert for alert in told if "Dr.KeyNotAccessible" in alert["subject"]]) == 3, "each failure by itself"
    events = stage.history(ended["executionArn"])
    assert len(events) < 100, f"{len(events)} events"

    # The same run gone on with: only the three that failed are backed up.
    failed = {failure["database"] for failure in summary["failures"]}
    again = stage.run("FleetBackup", request(resume=operation["operationId"]), seconds=600)
    assert again["status"] == "SUCCEEDED", again
    second = again["output"]
    assert (second["succeeded"], second["earlier"], second["failed"]) == (3, FLEET - 3, 0)
    assert second["outcome"] == "complete"
    made = snapshots(stage)
    assert all(made[one] == 1 for one in fleet)
    report = stage.report(second["reportKey"])
    assert {entry["database"] for entry in report["databases"] if entry["outcome"] == "succeeded"} == failed


def test_more_failures_than_are_tolerated_fail_the_run_and_are_critical(stage, fleet):
    broken = {"error": {"code": "KMSKeyNotAccessibleFault", "message": "no key", "status": 400}}
    stage.cloud.control("faults", {"action": "CreateDBSnapshot", "nth": 1, "count": 1, "effect": broken})
    ended = stage.run("FleetBackup", {
        "fleet": "three", "databases": [*fleet[:2], "fleet-nowhere"], "backup": BACKUP, "maxConcurrency": 1})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.FleetIncomplete"), ended
    operation = stage.operation(ended["executionArn"])
    assert operation["status"] == "failed"
    assert operation["checkpoints"]["summary"]["attention"] == [{"database": "fleet-nowhere", "reason": "missing"}]
    critical = stage.alerts("Critical")
    [alert] = [alert for alert in critical if "run of the fleet three" in alert["subject"]]
    assert "Dr.KeyNotAccessible" in alert["message"] and "resume" in alert["message"]


def test_a_second_run_of_a_fleet_is_refused_while_the_first_goes_on(stage, fleet):
    stage.cloud.control("config", {"statusMs": 600_000})
    few = {"fleet": "few", "databases": fleet[:2], "backup": BACKUP}
    first = stage.start("FleetBackup", few)
    try:
        def waits():
            states = stage.cloud.client("stepfunctions")
            running = states.list_executions(
                stateMachineArn=stage.outputs["BackupOrchestrationArn"], statusFilter="RUNNING")["executions"]
            return len(running) == 2
        until("both of its backups run", waits)
        refused = stage.run("FleetBackup", few)
        assert (refused["status"], refused["error"]) == ("FAILED", "Dr.OperationInProgress"), refused
        other = stage.run("FleetBackup", {**few, "fleet": "fewer"})
        assert other["status"] == "SUCCEEDED" and other["output"]["refused"] == 2, other
        assert other["output"]["severity"] == "warning"
    finally:
        stage.cloud.control("config", {"statusMs": RACES["statusMs"]})
    assert stage.finish(first)["status"] == "SUCCEEDED"
    assert any("Dr.OperationInProgress" in alert["subject"] for alert in stage.alerts("Warning"))


@pytest.mark.parametrize(("asked", "error", "says"), [
    ({"fleet": "nobody", "selector": {"tag": {"key": "Tier", "value": "nobody"}}}, "Dr.FleetEmpty", "none"),
    ({"fleet": "Many", "databases": ["a"]}, "Dr.InvalidInput", "fleet"),
    ({"fleet": "many", "databases": ["a"], "backup": {"database": "a"}}, "Dr.InvalidInput", "backup"),
])
def test_a_run_that_cannot_be_made_is_refused_by_name(stage, asked, error, says):
    ended = stage.run("FleetBackup", asked)
    assert (ended["status"], ended["error"]) == ("FAILED", error), ended
    operation = stage.operation(ended["executionArn"])
    assert operation["status"] == "failed" and says in operation["error"]["message"]
    assert any(error in alert["subject"] for alert in stage.alerts("Critical"))


def test_a_stopped_run_frees_its_fleet_and_its_backups_are_stopped_with_it(stage, fleet):
    stage.cloud.control("config", {"statusMs": 600_000})
    try:
        few = {"fleet": "stopped", "databases": fleet[:1], "backup": BACKUP}
        first = stage.start("FleetBackup", few)
        states, machine = stage.cloud.client("stepfunctions"), stage.outputs["BackupOrchestrationArn"]

        def running():
            return states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
        until("its backup runs", running)
        states.stop_execution(executionArn=first)
        until("its backup was stopped too", lambda: not running())
    finally:
        stage.cloud.control("config", {"statusMs": RACES["statusMs"]})
    until("the database is available again", lambda: stage.cloud.client("rds").describe_db_instances(
        DBInstanceIdentifier=fleet[0])["DBInstances"][0]["DBInstanceStatus"] == "available")
    again = stage.run("FleetBackup", few)
    assert again["status"] == "SUCCEEDED", json.dumps(again, default=str)

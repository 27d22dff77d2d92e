"""Backups that go well, and backups whose snapshot is damaged: through the deployed stack, with IAM enforced."""

import pytest
from stage import until

QUIET = {"crossRegionBackup": False}


def backup(stage, request, seconds=360):
    """Runs a backup; returns its end and its operation's record."""
    ended = stage.run("BackupOrchestration", request, seconds)
    return ended, stage.operation(ended["executionArn"])


def entered(stage, execution):
    """The names of the states that were entered so far."""
    return [event["stateEnteredEventDetails"]["name"] for event in stage.history(execution)
            if "stateEnteredEventDetails" in event]


def copies(stage, region, name):
    return [copy for copy in stage.cloud.client("rds", region).describe_db_snapshots()["DBSnapshots"]
            if copy["DBSnapshotIdentifier"] == name]


def test_a_backup_is_proven_and_copied_under_each_regions_key(stage, database):
    ended, operation = backup(stage, {
        "database": database.name, "tags": {"Owner": "ada"}, "lifecycle": {"deleteAfterDays": 7},
        "validation": {"foreignKeys": True, "uniqueConstraints": True}})
    assert ended["status"] == "SUCCEEDED", ended
    output = ended["output"]
    assert (output["proof"]["verdict"], output["proof"]["level"]) == ("proven", "content")
    assert output["proof"]["checks"]["sound"] > 10 and output["proof"]["checks"]["faulty"] == 0
    assert output["proof"]["coverage"]["provenRowsPercent"] > 90
    assert output["proof"]["rpoSeconds"] is not None

    [snapshot] = copies(stage, "us-east-1", output["snapshotId"])
    tags = {tag["Key"]: tag["Value"] for tag in snapshot["TagList"]}
    assert tags["lifeboat:proof"] == "proven" and tags["Owner"] == "ada"
    known = {key: value for key, value in tags.items() if key.startswith("lifeboat:proof") or "proven" in key}
    assert known["lifeboat:proof-level"] == "content" and known["lifeboat:proven-in"] == "us-east-1"
    assert known["lifeboat:proven-at"] == output["proof"]["judgedAt"]
    assert tags["lifeboat:operation-id"] == operation["operationId"]
    for region in ("us-west-2", "eu-west-1"):
        [copy] = copies(stage, region, output["snapshotId"])
        assert copy["KmsKeyId"] == stage.keys[region] and copy["Encrypted"]
        assert copy["OriginalSnapshotCreateTime"] == snapshot["OriginalSnapshotCreateTime"]
        carried = {tag["Key"]: tag["Value"] for tag in copy["TagList"]}
        assert carried["lifeboat:role"] == "copy" and carried["Owner"] == "ada"
        assert carried["lifeboat:source-arn"] == snapshot["DBSnapshotArn"]
        assert {key: carried.get(key) for key in known} == known

    assert operation["status"] == "succeeded"
    settings = operation["result"]["database"]["settings"]
    assert settings["subnetGroup"] and settings["parameterGroup"] and settings["instanceClass"]
    [info] = stage.alerts("Info")
    assert output["snapshotId"] in info["message"]
    assert stage.alerts("Critical") == []


def test_a_selector_finds_its_database_and_locks_it(stage, database):
    ended, operation = backup(stage, {"selector": {"tag": {"key": "tier", "value": "gold"}}, **QUIET})
    assert ended["status"] == "SUCCEEDED", ended
    assert operation["resourceId"] == database.name
    assert ended["output"]["copies"] == []


def test_a_quick_backup_restores_nothing(stage, database):
    ended, _ = backup(stage, {"database": database.name, "validation": {"depth": "quick"}, **QUIET})
    assert ended["status"] == "SUCCEEDED", ended
    assert ended["output"]["proof"]["level"] == "quick"
    [snapshot] = copies(stage, "us-east-1", ended["output"]["snapshotId"])
    assert {tag["Key"]: tag["Value"] for tag in snapshot["TagList"]}["lifeboat:proof-level"] == "quick"
    assert "FrameSource" not in entered(stage, ended["executionArn"])


def test_any_snapshot_can_be_proven_without_a_frame(stage, database):
    rds = stage.cloud.client("rds")
    rds.create_db_snapshot(DBInstanceIdentifier=database.name, DBSnapshotIdentifier="by-hand")
    rds.get_waiter("db_snapshot_available").wait(
        DBSnapshotIdentifier="by-hand", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    ended = stage.run("ProveBackup", {"snapshotId": "by-hand", "database": database.name})
    assert ended["status"] == "SUCCEEDED", ended
    assert (ended["output"]["verdict"], ended["output"]["level"]) == ("proven", "structure")
    assert stage.operation(ended["executionArn"])["status"] == "succeeded"


def test_a_second_backup_of_a_database_is_refused_while_the_first_runs(stage, database):
    first = stage.start("BackupOrchestration", {"database": database.name, **QUIET})
    until("the first holds its lock", lambda: "DescribeDatabase" in entered(stage, first))
    ended, operation = backup(stage, {"database": database.name, **QUIET})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.OperationInProgress")
    assert operation["error"]["code"] == "OPERATION_IN_PROGRESS"
    assert stage.finish(first)["status"] == "SUCCEEDED"


DAMAGE = {
    "zeroed page": ({"zeroPage": {"table": "shop.customer", "block": 3}}, "shop.customer"),
    "deleted row": ({"sql": {"statements": ["delete from shop.orders where order_id = 5"]}}, "shop.orders_2024"),
    "corrupted index": ({"corruptIndex": {"index": "shop.invoice_pkey"}}, "shop.invoice"),
    "torn log": ({"tearWal": {}}, ""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_backup_is_refused(stage, database, name):
    kind, subject = DAMAGE[name]
    # A page that is newer than what a torn log still has would keep the restore from starting at all, and a checkpoint that
    # is under way writes such pages. The next one is minutes away then.
    stage.as_superuser(database, "checkpoint")
    execution = stage.start_damaged({"database": database.name}, database.database, kind)
    ended, operation = stage.finish(execution), stage.operation(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.BackupUnproven"), ended
    snapshot = operation["plan"]["snapshotId"]
    [kept] = copies(stage, "us-east-1", snapshot)
    assert {tag["Key"]: tag["Value"] for tag in kept["TagList"]}["lifeboat:proof"] == "unproven"
    assert copies(stage, "us-west-2", snapshot) == copies(stage, "eu-west-1", snapshot) == []
    assert operation["error"]["name"] == "Dr.BackupUnproven" and subject in operation["error"]["message"]
    [alert] = [alert for alert in stage.alerts("Critical") if snapshot in alert["message"]]
    assert "NOT proven" in alert["subject"] and subject in alert["message"]

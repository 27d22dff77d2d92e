"""Bad input and trouble: each ends in a named error that says what, where and what to do, in the operation's record;
nothing leaks (the fixture `nothing_left` looks after each test), nothing is lost.
"""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from stage import until
from test_backups import QUIET, backup, copies, entered


def failed(stage, request, name, seconds=180):
    """A backup that must fail with this name, in the execution, in the record, and on a topic."""
    ended, operation = backup(stage, request, seconds)
    assert (ended["status"], ended.get("error")) == ("FAILED", name), ended
    assert operation["status"] == "failed" and operation["error"]["name"] == name
    assert len(operation["error"]["message"]) > 20
    alerts = stage.alerts("Critical") + stage.alerts("Warning")
    assert any(name in alert["message"] for alert in alerts), alerts
    return operation


@pytest.mark.parametrize(("request_", "name", "mentions"), [
    ({}, "Dr.InvalidInput", "database"),
    ({"database": "orders-db", "retention": 7}, "Dr.InvalidInput", "retention"),
    ({"database": 7}, "Dr.InvalidInput", "database"),
    ({"database": ""}, "Dr.InvalidInput", "database"),
    ({"database": "no_underscores"}, "Dr.InvalidInput", "database"),
    ({"database": "orders-db", "targetRegions": ["mars"]}, "Dr.InvalidInput", "targetRegions"),
    ({"database": "orders-db", "targetRegions": ["ap-south-1"]}, "Dr.RegionUnknown", "ap-south-1"),
    ({"database": "orders-db", "validation": {"connections": 99}}, "Dr.InvalidInput", "connections"),
    ({"database": "missing-db"}, "Dr.DatabaseMissing", "missing-db"),
    ({"selector": {"tag": {"key": "tier", "value": "nobody"}}}, "Dr.DatabaseMissing", "tier"),
    ([], "Dr.InvalidInput", ""),
])
def test_bad_input_is_refused_by_name(stage, database, request_, name, mentions):
    operation = failed(stage, request_, name)
    assert mentions in operation["error"]["message"]


def test_a_proof_of_a_missing_snapshot_is_refused(stage):
    ended = stage.run("ProveBackup", {"snapshotId": "there-is-none"})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.SnapshotMissing"), ended


def test_a_database_that_is_not_available_is_waited_for_and_then_refused(stage):
    sleeper = stage.create_database("sleeper-db")
    rds = stage.cloud.client("rds")
    rds.stop_db_instance(DBInstanceIdentifier=sleeper.name)
    until("sleeper-db stopped", lambda: rds.describe_db_instances(DBInstanceIdentifier=sleeper.name)[
        "DBInstances"][0]["DBInstanceStatus"] == "stopped")
    failed(stage, {"database": sleeper.name, **QUIET}, "Dr.DatabaseUnavailable")


def test_a_wrong_password_is_named_and_not_shown(stage, database):
    secret = stage.cloud.client("secretsmanager").create_secret(
        Name="lifeboat-test/wrong", SecretString=json.dumps({"username": "dba", "password": "canary-4711"}))["Name"]
    request = {"database": database.name, "validation": {"credentials": {"secretId": secret}}, **QUIET}
    operation = failed(stage, request, "Dr.CredentialsRejected")
    assert "canary-4711" not in json.dumps(operation)
    assert "canary-4711" not in stage.cloud.log("ministack").read_text(errors="replace")


def test_one_region_that_fails_does_not_undo_the_other(stage, database):
    key = stage.keys["eu-west-1"]
    kms = stage.cloud.client("kms", "eu-west-1")
    kms.disable_key(KeyId=key)
    try:
        ended, operation = backup(stage, {"database": database.name})
    finally:
        kms.enable_key(KeyId=key)
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.ReplicationIncomplete"), ended
    assert operation["status"] == "partial"
    states = {copy["region"]: copy for copy in operation["result"]["copies"]}
    assert states["us-west-2"]["status"] == "done"
    assert (states["eu-west-1"]["status"], states["eu-west-1"]["error"]) == ("failed", "Dr.KeyDisabled")
    assert len(copies(stage, "us-west-2", operation["plan"]["snapshotId"])) == 1
    assert any("eu-west-1" in alert["subject"] for alert in stage.alerts("Critical"))


@pytest.mark.parametrize(("key", "name"), [("deleted", "Dr.KeyPendingDeletion"), ("missing", "Dr.KeyMissing")])
def test_a_key_that_cannot_be_used_is_named(stage, database, key, name):
    kms = stage.cloud.client("kms", "us-west-2")
    if key == "deleted":
        given = kms.create_key()["KeyMetadata"]["Arn"]
        kms.schedule_key_deletion(KeyId=given, PendingWindowInDays=7)
    else:
        given = f"arn:aws:kms:us-west-2:{stage.cloud.account}:key/00000000-0000-0000-0000-000000000000"
    ended, operation = backup(stage, {
        "database": database.name, "targetRegions": ["us-west-2"], "encryptionKeys": {"us-west-2": given},
        "validation": {"depth": "quick"}})
    assert ended["error"] == "Dr.ReplicationIncomplete"
    assert operation["result"]["copies"][0]["error"] == name


def test_a_used_up_quota_is_named(stage, database):
    stage.cloud.control("config", {"snapshotQuota": 0})
    try:
        failed(stage, {"database": database.name, "validation": {"depth": "quick"}, **QUIET},
               "Dr.SnapshotQuotaExceeded")
    finally:
        stage.cloud.control("config", {"snapshotQuota": 100})


def test_used_up_copy_slots_are_waited_for(stage, database):
    stage.cloud.control("config", {"copySlots": 0})
    execution = stage.start("BackupOrchestration", {
        "database": database.name, "targetRegions": ["us-west-2"], "validation": {"depth": "quick"}})
    try:
        until("the copy is being waited for", lambda: "WaitForCopy" in entered(stage, execution))
    finally:
        stage.cloud.control("config", {"copySlots": 20})
    assert stage.finish(execution)["status"] == "SUCCEEDED"


def test_throttling_is_outlived(stage, database):
    throttled = {"error": {"code": "Throttling", "message": "Rate exceeded", "status": 400}}
    for action in ("CreateDBSnapshot", "DescribeDBSnapshots", "RestoreDBInstanceFromDBSnapshot", "CopyDBSnapshot"):
        stage.cloud.control("faults", {"action": action, "nth": 1, "count": 2, "effect": throttled})
    ended, _ = backup(stage, {"database": database.name})
    assert ended["status"] == "SUCCEEDED", ended


@pytest.mark.parametrize("action", ["CreateDBSnapshot", "RestoreDBInstanceFromDBSnapshot", "ModifyDBInstance",
                                    "DeleteDBInstance", "CopyDBSnapshot"])
def test_an_answer_that_is_lost_after_success_is_outlived(stage, database, action):
    stage.cloud.control("faults", {"action": action, "nth": 1, "count": 1, "effect": {"loseAnswer": True}})
    ended, operation = backup(stage, {"database": database.name, "targetRegions": ["us-west-2"]})
    assert ended["status"] == "SUCCEEDED", ended
    assert len(copies(stage, "us-west-2", operation["plan"]["snapshotId"])) == 1


@pytest.mark.parametrize(("outcome", "name"), [
    ("incompatible-network", "Dr.RestoreIncompatible"), ("never-available", "Dr.RestoreTimeout")])
def test_a_restore_that_comes_to_nothing_is_named_and_disposed_of(stage, database, outcome, name):
    stage.cloud.control("faults", {"action": "RestoreDBInstanceFromDBSnapshot", "nth": 1, "count": 1,
                                   "effect": {"outcome": outcome}})
    failed(stage, {"database": database.name, **QUIET}, name)


def test_a_copy_that_fails_half_way_is_named(stage, database):
    stage.cloud.control("faults", {"action": "CopyDBSnapshot", "region": "us-west-2", "nth": 1, "count": 9,
                                   "effect": {"outcome": "copy-fails"}})
    ended, operation = backup(stage, {"database": database.name, "validation": {"depth": "quick"}})
    assert ended["error"] == "Dr.ReplicationIncomplete"
    states = {copy["region"]: copy for copy in operation["result"]["copies"]}
    assert states["us-west-2"]["error"] == "Dr.ReplicationFailed" and states["eu-west-1"]["status"] == "done"


def test_a_connection_that_is_cut_in_a_digest_is_outlived(stage, database):
    cut = {"region": "us-east-1", "instance": database.name, "effect": {"cutAfterBytes": 60_000}}
    stage.cloud.control("connections", cut)
    execution = stage.start("BackupOrchestration", {"database": database.name, **QUIET})
    try:
        until("the frame is being taken", lambda: "FrameSource" in entered(stage, execution))
        time.sleep(2)
    finally:
        stage.cloud.control("connections", {**cut, "effect": None})
    assert stage.finish(execution)["status"] == "SUCCEEDED"


def test_a_function_that_is_killed_is_started_again(stage, database):
    """SIGKILL for the process of validate_backup while it works, as Lambda does to one that runs out of memory."""
    function = stage.outputs["ValidateBackupFunctionName"]
    execution = stage.start("BackupOrchestration", {"database": database.name, **QUIET})

    mark = f"AWS_LAMBDA_FUNCTION_NAME={function}".encode()

    def kill():
        killed = 0
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)
                    killed += 1
        return killed
    until("validate_backup frames", lambda: "FrameSource" in entered(stage, execution))
    until("a process of validate_backup to kill", kill, pause=0.02)
    assert stage.finish(execution)["status"] == "SUCCEEDED"


def test_an_execution_that_is_stopped_frees_its_database_for_the_next(stage, database):
    execution = stage.start("BackupOrchestration", {"database": database.name, **QUIET})
    until("it frames", lambda: "FrameSource" in entered(stage, execution))
    stage.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    ended, _ = backup(stage, {"database": database.name, **QUIET})
    assert ended["status"] == "SUCCEEDED", ended


def test_the_emergency_stop_refuses_new_backups(stage, database):
    answer, error = stage.invoke("UpdateState", {"emergencyStop": {"by": "ada", "reason": "drill"}})
    assert error is None and answer["emergencyStop"]["inForce"] is True
    try:
        failed(stage, {"database": database.name, **QUIET}, "Dr.EmergencyStopActive")
    finally:
        stage.invoke("UpdateState", {"liftEmergencyStop": {"by": "ada", "reason": "drill over"}})


def test_a_missing_bucket_is_named(stage, database):
    s3, bucket = stage.cloud.client("s3"), stage.outputs["MetadataBucketName"]
    versions = [page for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket)]
    for page in versions:
        for version in page.get("Versions", []) + page.get("DeleteMarkers", []):
            s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    s3.delete_bucket(Bucket=bucket)
    try:
        failed(stage, {"database": database.name, **QUIET}, "Dr.MetadataBucketMissing")
    finally:
        s3.create_bucket(Bucket=bucket)


def test_a_missing_table_is_announced_even_though_it_cannot_be_recorded(stage, database):
    """Last in this file: the table does not come back."""
    table = stage.cloud.client("dynamodb")
    name = stage.outputs["StateTableName"]
    definition = table.describe_table(TableName=name)["Table"]
    table.update_table(TableName=name, DeletionProtectionEnabled=False)
    table.delete_table(TableName=name)
    try:
        ended = stage.run("BackupOrchestration", {"database": database.name, **QUIET})
        assert (ended["status"], ended["error"]) == ("FAILED", "Dr.StateTableMissing"), ended
        assert any("Dr.StateTableMissing" in alert["message"] for alert in stage.alerts("Critical"))
    finally:
        table.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=definition["KeySchema"],
            AttributeDefinitions=definition["AttributeDefinitions"],
            GlobalSecondaryIndexes=[{key: index[key] for key in ("IndexName", "KeySchema", "Projection")}
                                    for index in definition["GlobalSecondaryIndexes"]])

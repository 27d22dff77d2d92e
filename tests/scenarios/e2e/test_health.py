"""Health of the deployed stack, IAM enforced: each finding is provoked for real, told once, not told again while it
stays, and told as over when it is mended.
"""

import contextlib
import datetime
import functools
import json

import pytest
from stage import together, until

# What has a replica is not stopped: the third one has none.
DATABASE, REPLICA, IDLE = "ledger-db", "ledger-db-replica", "idle-db"


def now():
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def ledger(stage):
    """A database with a proven backup and its copies, an instance that calls itself its replica, and one by itself."""
    stage.create_database(DATABASE, DeletionProtection=True)
    done = stage.run("BackupOrchestration", {"database": DATABASE, "validation": {"depth": "quick"}})
    assert done["status"] == "SUCCEEDED", done
    for name in (REPLICA, IDLE):
        stage.create_database(name)
    stage.cloud.control("replication", {"region": stage.cloud.region, "instance": REPLICA, "source": DATABASE})
    measure(stage, ReplicaLag=(REPLICA, 2), FreeStorageSpace=(DATABASE, 15 << 30))
    measure(stage, FreeStorageSpace=(REPLICA, 15 << 30))
    yield stage
    rds = stage.cloud.client("rds")
    rds.modify_db_instance(DBInstanceIdentifier=DATABASE, DeletionProtection=False)
    names = {DATABASE, REPLICA, IDLE}
    for name in names:
        rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)

    def gone():
        return not names & {one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]}
    until("the ledger is gone", gone)


@functools.cache
def minutes():
    """The minutes of which values are told, one after the other, in the quarter of an hour that counts."""
    first = now() - datetime.timedelta(minutes=9)
    return (first + datetime.timedelta(minutes=n) for n in range(9))


def measure(stage, **metrics):
    """What RDS would tell CloudWatch of the next minute."""
    at = next(minutes())
    for name, (database, value) in metrics.items():
        stage.cloud.client("cloudwatch").put_metric_data(Namespace="AWS/RDS", MetricData=[{
            "MetricName": name, "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": database}],
            "Timestamp": at, "Value": value}])


def check(stage, **request):
    answer, error = stage.invoke("HealthCheck", {"check": request})
    assert error is None, error
    return answer


def found(answer, subject):
    return sorted(f"{one['severity']} {one['code']}" for one in answer["findings"] if one["subject"] == subject)


def told(stage, word):
    """Topics on which something was told about `word` since the last look, and the texts."""
    heard = [(topic, alert["message"]) for topic in ("Critical", "Warning", "Info") for alert in stage.alerts(topic)]
    lines = [(topic, line) for topic, text in heard for line in text.splitlines() if word in line]
    return lines


# What is broken, and how it is mended. Each yields the subject of its finding.

@contextlib.contextmanager
def stopped(stage):
    rds = stage.cloud.client("rds")

    def status(wanted):
        def look():
            [one] = rds.describe_db_instances(DBInstanceIdentifier=IDLE)["DBInstances"]
            return one["DBInstanceStatus"] == wanted
        until(f"{IDLE} {wanted}", look)
    rds.stop_db_instance(DBInstanceIdentifier=IDLE)
    status("stopped")
    try:
        yield IDLE
    finally:
        rds.start_db_instance(DBInstanceIdentifier=IDLE)
        status("available")


@contextlib.contextmanager
def not_replicating(stage):
    measure(stage, ReplicaLag=(REPLICA, -1))
    try:
        yield REPLICA
    finally:
        measure(stage, ReplicaLag=(REPLICA, 1))


@contextlib.contextmanager
def replication_broken(stage):
    order = {"region": stage.cloud.region, "instance": REPLICA, "source": DATABASE}
    stage.cloud.control("replication", {**order, "status": "error", "message": "the WAL is gone"})
    try:
        yield REPLICA
    finally:
        stage.cloud.control("replication", order)


@contextlib.contextmanager
def key_disabled(stage):
    kms, key = stage.cloud.client("kms", "us-west-2"), stage.keys["us-west-2"]
    kms.disable_key(KeyId=key)
    try:
        yield key
    finally:
        kms.enable_key(KeyId=key)


@contextlib.contextmanager
def key_pending_deletion(stage):
    kms, key = stage.cloud.client("kms", "eu-west-1"), stage.keys["eu-west-1"]
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    try:
        yield key
    finally:
        kms.cancel_key_deletion(KeyId=key)
        kms.enable_key(KeyId=key)


@contextlib.contextmanager
def quota_full(stage):
    region = "eu-west-1"
    quotas = stage.cloud.client("rds", region).describe_account_attributes()["AccountQuotas"]
    [used] = [one["Used"] for one in quotas if one["AccountQuotaName"] == "ManualSnapshots"]
    assert used
    # All Regions share the figure: where more is used, more than all of it is.
    stage.cloud.control("config", {"snapshotQuota": used})
    try:
        yield "ManualSnapshots"
    finally:
        stage.cloud.control("config", {"snapshotQuota": 100})


@contextlib.contextmanager
def lock_expired(stage):
    table, name = stage.cloud.client("dynamodb"), stage.outputs["StateTableName"]
    key = {"operationId": {"S": "lock#forgotten-db"}}
    execution = f"arn:aws:states:us-east-1:{stage.cloud.account}:execution:lifeboat-backup-orchestration:gone"
    table.put_item(TableName=name, Item={
        **key, "type": {"S": "lock"}, "resourceId": {"S": "forgotten-db"}, "owner": {"S": "backup-0123456789abcdef"},
        "ownerExecution": {"S": execution}, "startedAt": {"S": "2026-01-01T00:00:00Z"},
        "leaseUntil": {"S": "2026-01-01T12:00:00Z"}, "version": {"N": "1"}})
    try:
        yield "lock#forgotten-db"
    finally:
        table.delete_item(TableName=name, Key=key)


@contextlib.contextmanager
def secret_forgotten(stage):
    secrets, name = stage.cloud.client("secretsmanager"), "lifeboat/tmp/forgotten"
    secrets.create_secret(Name=name, SecretString="{}", Tags=[
        {"Key": "lifeboat:role", "Value": "temporary"},
        {"Key": "lifeboat:operation-id", "Value": "proof-0123456789abcdef"},
        {"Key": "lifeboat:expires-at", "Value": (now() - datetime.timedelta(minutes=16)).isoformat()}])
    try:
        yield name
    finally:
        secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


@contextlib.contextmanager
def emergency_stop(stage):
    def order(action):
        answer, error = stage.invoke("UpdateState", {action: {"by": "test", "reason": "health"}})
        assert error is None, error
        return answer["emergencyStop"]["inForce"]
    assert order("emergencyStop")
    try:
        yield "emergency-stop"
    finally:
        assert not order("liftEmergencyStop")


@contextlib.contextmanager
def authority_ends(stage):
    soon = now() + datetime.timedelta(days=29)
    stage.cloud.control("config", {"caValidTill": soon.isoformat().replace("+00:00", "Z")})
    try:
        yield DATABASE
    finally:
        stage.cloud.control("config", {"caValidTill": "2061-05-25T22:34:57Z"})


@contextlib.contextmanager
def storage_full(stage):
    measure(stage, FreeStorageSpace=(DATABASE, 0))
    try:
        yield DATABASE
    finally:
        measure(stage, FreeStorageSpace=(DATABASE, 15 << 30))


@contextlib.contextmanager
def too_old(stage):
    """A backup may be four seconds old."""
    functions, name = stage.cloud.client("lambda"), stage.outputs["HealthCheckFunctionName"]
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def allow(hours):
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": {**variables, "DR_BACKUP_AGE_HOURS": hours}})
        functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    allow("0.001")
    try:
        yield DATABASE
    finally:
        allow(variables["DR_BACKUP_AGE_HOURS"])


# How a message speaks of what it does not name by its key.
SPOKEN = {"lock#forgotten-db": "`forgotten-db`", "emergency-stop": "emergency stop"}

BREAKAGES = [
    (stopped, "Critical", "database-down"),
    (not_replicating, "Critical", "replication-stopped"),
    (replication_broken, "Critical", "replication-stopped"),
    (storage_full, "Critical", "storage-nearly-full"),
    (key_disabled, "Critical", "key-disabled"),
    (key_pending_deletion, "Critical", "key-pending-deletion"),
    (quota_full, "Critical", "quota-nearly-used"),
    (authority_ends, "Critical", "certificate-expires"),
    (too_old, "Critical", "backup-old"),
    (lock_expired, "Warning", "lock-expired"),
    (secret_forgotten, "Warning", "lease-expired"),
    (emergency_stop, "Warning", "emergency-stop"),
]


@pytest.mark.parametrize(("broken", "topic", "code"), BREAKAGES, ids=[one[0].__name__ for one in BREAKAGES])
def test_what_breaks_is_told_once_and_so_is_its_end(ledger, broken, topic, code):
    before = check(ledger)
    told(ledger, "")
    with broken(ledger) as subject:
        severity = topic.lower()
        assert f"{severity} {code}" not in found(before, subject)
        during = check(ledger)
        assert f"{severity} {code}" in found(during, subject), during["findings"]
        assert during["status"] != "healthy"
        word = SPOKEN.get(subject, subject)
        heard = told(ledger, word)
        assert any(line.startswith(severity.upper()) for _, line in heard), heard
        assert topic in {of for of, _ in heard}, heard
        check(ledger)
        assert told(ledger, word) == [], "the same again is not told again"
    after = check(ledger)
    assert f"{severity} {code}" not in found(after, subject)
    over = told(ledger, f"/{subject}/{code}")
    assert [line.startswith("OVER") for _, line in over] == [True] * len(over) and over, over


def test_a_database_that_is_well_is_healthy_and_comes_back_from_elsewhere(ledger):
    answer = check(ledger, databases=[DATABASE])
    assert answer["status"] == "healthy", answer
    [home] = answer["ifHomeDied"]
    assert home["from"]["kind"] == "copy" and home["from"]["region"] in ("us-west-2", "eu-west-1")
    assert 0 <= home["rpoSeconds"] < 3600
    report = ledger.report(answer["report"])
    assert (report["status"], report["findings"]) == ("healthy", answer["findings"])


def test_a_check_without_alerts_tells_nobody(ledger):
    check(ledger)
    told(ledger, "")
    with emergency_stop(ledger) as subject:
        answer = check(ledger, alert=False)
        assert found(answer, subject) == ["warning emergency-stop"] and "alert" not in answer
        assert told(ledger, SPOKEN[subject]) == []
    assert check(ledger)["alert"]["recovered"] == 0


def test_two_checks_at_once_tell_once(ledger):
    check(ledger)
    told(ledger, "")
    with emergency_stop(ledger) as subject:
        together(*[lambda: check(ledger)] * 4)
        heard = [line for _, line in told(ledger, SPOKEN[subject])]
        assert len(heard) == 1, heard
    check(ledger)


def test_health_is_measured_without_any_identifier(ledger):
    check(ledger)
    log = ledger.cloud.client("logs")
    pages = log.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/lifeboat-health-check")
    lines = [event["message"] for page in pages for event in page["events"] if "dr_system_health" in event["message"]]
    assert lines
    measured = json.loads(lines[-1][lines[-1].index("{"):])
    text = json.dumps(measured["_aws"])
    assert DATABASE not in text and '"component"' in text

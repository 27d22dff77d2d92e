"""Faults to order: errors, lost answers, bad outcomes, delays, and trouble on connections."""

import time

import pytest
from botocore.exceptions import ConnectionClosedError, ConnectionError, HTTPClientError

from harness import wire_error


def test_the_nth_call_fails_and_only_that(region):
    error = {"error": {"code": "Throttling", "message": "Rate exceeded", "status": 400}}
    region.fault("DescribeDBInstances", error, nth=2, count=2)
    describe = region.client.describe_db_instances
    describe()
    for _ in range(2):
        assert wire_error(describe) == ("Throttling", 400, "Rate exceeded")
    describe()
    region.client.describe_db_snapshots()


def test_a_fault_can_have_any_code_and_status(new_region):
    region, other = new_region(), new_region()
    region.fault("CreateDBSnapshot", {"error": {"code": "AccessDenied", "message": "no", "status": 403}})
    new = {"DBSnapshotIdentifier": "s", "DBInstanceIdentifier": "i"}
    assert wire_error(other.client.create_db_snapshot, **new)[:2] == ("DBInstanceNotFound", 404)
    assert wire_error(region.client.create_db_snapshot, **new) == ("AccessDenied", 403, "no")
    assert wire_error(region.client.create_db_snapshot, **new)[:2] == ("DBInstanceNotFound", 404)


def test_a_lost_answer_follows_a_call_that_was_performed(region):
    region.instance("orders")
    region.fault("CreateDBSnapshot", {"loseAnswer": True})
    new = {"DBSnapshotIdentifier": "shot", "DBInstanceIdentifier": "orders"}
    with pytest.raises((ConnectionClosedError, ConnectionError, HTTPClientError)):
        region.client.create_db_snapshot(**new)
    region.wait_snapshot("shot")
    assert wire_error(region.client.create_db_snapshot, **new)[:2] == ("DBSnapshotAlreadyExists", 400)


def test_a_copy_fails_half_way(new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("shot", "orders")["DBSnapshotArn"]
    away.fault("CopyDBSnapshot", {"outcome": "copy-fails"})
    away.client.copy_db_snapshot(SourceDBSnapshotIdentifier=source, TargetDBSnapshotIdentifier="copy")
    failed = away.wait_snapshot("copy", "failed")
    assert 0 < failed["PercentProgress"] < 100
    away.client.delete_db_snapshot(DBSnapshotIdentifier="copy")
    away.client.copy_db_snapshot(SourceDBSnapshotIdentifier=source, TargetDBSnapshotIdentifier="copy")
    away.wait_snapshot("copy")


def test_a_restore_ends_in_incompatible_network(region):
    region.instance("orders")
    region.snapshot("shot", "orders")
    region.fault("RestoreDBInstanceFromDBSnapshot", {"outcome": "incompatible-network"})
    region.client.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="bad", DBSnapshotIdentifier="shot")
    seen = region.wait_instance("bad", "incompatible-network")
    assert "Endpoint" not in seen
    last = {"DBInstanceIdentifier": "bad", "FinalDBSnapshotIdentifier": "last"}
    assert wire_error(region.client.delete_db_instance, **last)[:2] == ("InvalidDBInstanceState", 400)
    region.client.delete_db_instance(DBInstanceIdentifier="bad", SkipFinalSnapshot=True)
    region.wait_gone("bad")


def test_a_restore_never_becomes_available(region):
    region.instance("orders")
    region.snapshot("shot", "orders")
    region.fault("RestoreDBInstanceFromDBSnapshot", {"outcome": "never-available"})
    region.client.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="bad", DBSnapshotIdentifier="shot")
    region.restore("good", "shot")
    assert region.look("bad")["DBInstanceStatus"] == "creating"
    region.client.delete_db_instance(DBInstanceIdentifier="bad", SkipFinalSnapshot=True)
    region.wait_gone("bad")


def test_a_call_is_delayed(region):
    region.fault("DescribeDBInstances", {"delayMs": 700})
    begun = time.monotonic()
    region.client.describe_db_instances()
    assert time.monotonic() - begun >= 0.7


def test_orders_are_listed_cleared_and_checked(rds, region):
    region.fault("DescribeDBInstances", {"error": {"code": "Boom"}})
    _, state = rds.control("GET", "state")
    assert [one["action"] for one in state["faults"]] == ["DescribeDBInstances"]
    rds.control("DELETE", "faults")
    region.client.describe_db_instances()
    for wrong in [{"action": "X"}, {"action": "X", "effect": {"explode": True}}, {"effect": {"delayMs": 1}}]:
        status, answer = rds.control("POST", "faults", wrong)
        assert status == 400 and answer["error"]
    status, answer = rds.control("POST", "config", {"statusMs": "soon"})
    assert status == 400 and answer["error"]
    status, answer = rds.control("POST", "config", {"nonsense": 1})
    assert status == 400 and "nonsense" in answer["error"]


def order(region, effect, instance="orders"):
    return region.rds.control(
        "POST", "connections", {"region": region.name, "instance": instance, "effect": effect}
    )


def test_connections_are_cut_after_so_many_bytes_once(region):
    region.instance("orders")
    long = "select repeat('x', 1000) from generate_series(1, 2000)"
    assert order(region, {"cutAfterBytes": 200_000})[0] == 200
    assert not region.psql("orders", long).fine
    assert len(region.psql("orders", long).value) > 2_000_000
    assert order(region, {"cutAfterBytes": 10})[0] == 200
    assert order(region, None)[0] == 200
    assert region.psql("orders", "select 1").value == "1"


def test_connections_are_refused_until_told_otherwise(region):
    region.instance("orders")
    assert order(region, {"refuse": True})[0] == 200
    assert "refused" in region.psql("orders", "select 1").error
    assert region.look("orders")["DBInstanceStatus"] == "available"
    assert order(region, None)[0] == 200
    assert region.psql("orders", "select 1").value == "1"


def test_present_connections_are_cut(region):
    region.instance("orders")
    client = region.connected("orders")
    assert order(region, {"cutNow": True})[0] == 200
    client.lost()
    assert region.psql("orders", "select 1").value == "1"


def test_orders_for_what_is_not_there_are_refused(region):
    assert order(region, {"cutNow": True}, "absent")[0] == 404
    region.fault("CreateDBInstance", {"outcome": "never-available"})
    region.begin_instance("orders")
    assert order(region, {"cutNow": True})[0] == 409

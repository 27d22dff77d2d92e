"""Both meanings of SnapshotQuotaExceeded with AWS's own words, the instance quota, and the figures to read live."""

from harness import HELD, wire_error


def quota(region, name):
    quotas = region.client.describe_account_attributes()["AccountQuotas"]
    return next((one["Used"], one["Max"]) for one in quotas if one["AccountQuotaName"] == name)


def test_manual_snapshots_are_limited_and_copies_count(rds, new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("one", "orders")["DBSnapshotArn"]
    rds.configure(snapshotQuota=2)
    home.snapshot("two", "orders")
    assert quota(home, "ManualSnapshots") == (2, 2)
    wanted = ("SnapshotQuotaExceeded", 400, "Cannot create more than 2 manual snapshots")
    new = {"DBSnapshotIdentifier": "three", "DBInstanceIdentifier": "orders"}
    assert wire_error(home.client.create_db_snapshot, **new) == wanted
    local = {"SourceDBSnapshotIdentifier": "one", "TargetDBSnapshotIdentifier": "three"}
    assert wire_error(home.client.copy_db_snapshot, **local) == wanted
    last = {"DBInstanceIdentifier": "orders", "FinalDBSnapshotIdentifier": "three"}
    assert wire_error(home.client.delete_db_instance, **last) == wanted
    assert home.look("orders")["DBInstanceStatus"] == "available"
    for name in ["a", "b"]:
        away.client.copy_db_snapshot(SourceDBSnapshotIdentifier=source, TargetDBSnapshotIdentifier=name)
    crossing = {"SourceDBSnapshotIdentifier": source, "TargetDBSnapshotIdentifier": "c"}
    assert wire_error(away.client.copy_db_snapshot, **crossing) == wanted
    home.client.delete_db_snapshot(DBSnapshotIdentifier="two")
    home.snapshot("three", "orders")


def test_copies_under_way_are_limited_by_destination(rds, new_region):
    home, away, third = new_region(), new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("shot", "orders")["DBSnapshotArn"]
    rds.configure(copySlots=2, copyMs=HELD)

    def copy(region, name):
        return region.client.copy_db_snapshot(SourceDBSnapshotIdentifier=source, TargetDBSnapshotIdentifier=name)

    copy(away, "a")
    copy(away, "b")
    wanted = ("SnapshotQuotaExceeded", 400, "Cannot copy more than 2 snapshots across regions")
    assert wire_error(copy, away, "c") == wanted
    copy(third, "a")
    copy(home, "local")
    rds.configure(copyMs=120)
    away.wait_snapshot("a")
    away.wait_snapshot("b")
    copy(away, "c")


def test_instances_are_limited(rds, region):
    rds.configure(instanceQuota=1)
    region.instance("one")
    region.snapshot("shot", "one")
    assert quota(region, "DBInstances") == (1, 1)
    assert wire_error(region.begin_instance, "two")[:2] == ("InstanceQuotaExceeded", 400)
    restore = {"DBInstanceIdentifier": "two", "DBSnapshotIdentifier": "shot"}
    refused = wire_error(region.client.restore_db_instance_from_db_snapshot, **restore)
    assert refused[:2] == ("InstanceQuotaExceeded", 400)


def test_a_hollow_instance_has_no_server_and_is_copied_hollow(rds, new_region):
    home, away = new_region(), new_region()
    rds.configure(hollow=True)
    try:
        home.instance("shell")
    finally:
        rds.configure(hollow=False)
    shot = home.snapshot("shot", "shell")
    away.client.copy_db_snapshot(SourceDBSnapshotIdentifier=shot["DBSnapshotArn"], TargetDBSnapshotIdentifier="shot")
    assert home.state()["instances"]["shell"].get("pids", []) == []
    home.instance("full")
    assert home.state()["instances"]["full"]["pids"], "others are not hollow"

"""Snapshots are physical and crash-consistent; copies cross Regions under another key; restores are real servers."""

import subprocess
from pathlib import Path

from harness import HELD, PASSWORD, installations, pairs, poll, tags_of, wire_error


def rows(region, instance, query):
    return region.psql(instance, query).value


def test_a_snapshot_under_writes_restores_to_one_instant(region):
    instance = region.instance("orders")
    bin_dir = installations()[-1] / "bin"
    target = (
        f"host=127.0.0.1 port={instance['Endpoint']['Port']} user=boss password={PASSWORD} dbname=app sslmode=require"
    )
    subprocess.run([bin_dir / "pgbench", "-i", "-q", "-s", "2", target], check=True, capture_output=True)
    region.psql("orders", "create table heartbeat as select clock_timestamp() as beaten").value
    load = subprocess.Popen(
        [bin_dir / "pgbench", "-n", "-c", "4", "-T", "60", target], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        history = "select count(*) from pgbench_history"
        poll(lambda: int(rows(region, "orders", history)), lambda seen: seen > 50)
        before = int(rows(region, "orders", history))
        region.snapshot("shot", "orders")
        after = int(rows(region, "orders", history))
        assert load.poll() is None, "the load goes on through a snapshot"
    finally:
        load.terminate()
        load.wait()
    region.restore("restored", "shot")
    assert before <= int(rows(region, "restored", history)) <= after
    balances = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
    assert rows(region, "restored", balances) == "t", "whole transactions only"
    tellers = "select (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)"
    assert rows(region, "restored", tellers) == "t"
    assert rows(region, "restored", "select count(*) from heartbeat") == "1"


def test_a_snapshot_is_of_the_instant_of_the_call(rds, region):
    region.instance("orders")
    region.psql("orders", "create table t as select 1 as n").value
    rds.configure(statusMs=HELD)
    answer = region.client.create_db_snapshot(DBSnapshotIdentifier="shot", DBInstanceIdentifier="orders")["DBSnapshot"]
    assert answer["Status"] == "creating" and "SnapshotCreateTime" not in answer
    assert region.look("orders")["DBInstanceStatus"] == "backing-up"
    region.psql("orders", "insert into t values (2)").value
    rds.configure(statusMs=500)
    progress = []

    def look():
        seen = region.look_snapshot("shot")
        progress.append(seen["PercentProgress"])
        return seen

    shot = poll(look, lambda seen: seen["Status"] == "available")
    rds.configure(statusMs=40)
    assert progress == sorted(progress) and progress[-1] == 100
    assert shot["SnapshotCreateTime"] == shot["OriginalSnapshotCreateTime"] == shot["SnapshotDatabaseTime"]
    region.restore("restored", "shot")
    assert rows(region, "restored", "select array_agg(n) from t") == "{1}"


def test_a_restore_keeps_the_password_of_its_time_until_it_is_changed(region):
    region.instance("orders")
    region.snapshot("shot", "orders")
    region.client.modify_db_instance(
        DBInstanceIdentifier="orders", MasterUserPassword="second-Secret", ApplyImmediately=True
    )
    region.wait_instance("orders")
    restored = region.restore("restored", "shot")
    assert restored["MasterUsername"] == "boss"
    assert region.psql("restored", "select 1", password=PASSWORD).value == "1"
    region.client.modify_db_instance(
        DBInstanceIdentifier="restored", MasterUserPassword="third-Secret", ApplyImmediately=True
    )
    region.wait_instance("restored")
    assert region.psql("restored", "select 1", password="third-Secret").value == "1"
    assert region.psql("orders", "select 1", password="second-Secret").value == "1"


def test_a_restore_takes_the_settings_of_the_request_and_defaults_for_the_rest(region):
    client = region.client
    client.create_db_subnet_group(
        DBSubnetGroupName="private", DBSubnetGroupDescription="x", SubnetIds=["subnet-1", "subnet-2"]
    )
    region.instance(
        "orders", DBSubnetGroupName="private", VpcSecurityGroupIds=["sg-9"], Tags=pairs(of="source"), MultiAZ=True
    )
    region.snapshot("shot", "orders", Tags=pairs(of="snapshot"))
    plain = region.restore("plain", "shot")
    assert plain["DBSubnetGroup"]["DBSubnetGroupName"] == "default"
    assert [one["VpcSecurityGroupId"] for one in plain["VpcSecurityGroups"]] != ["sg-9"]
    assert (plain["MultiAZ"], plain["DeletionProtection"], tags_of(plain)) == (False, False, {})
    given = region.restore(
        "given",
        region.arn("snapshot", "shot"),
        DBSubnetGroupName="private",
        VpcSecurityGroupIds=["sg-7"],
        DBInstanceClass="db.r6g.large",
        BackupRetentionPeriod=0,
        EnableIAMDatabaseAuthentication=True,
        Tags=pairs(lease="mine"),
    )
    assert given["DBSubnetGroup"]["DBSubnetGroupName"] == "private"
    assert (given["DBInstanceClass"], given["BackupRetentionPeriod"]) == ("db.r6g.large", 0)
    assert (given["IAMDatabaseAuthenticationEnabled"], tags_of(given)) == (True, {"lease": "mine"})


def test_a_copy_crosses_regions_under_another_key_and_restores_there(rds, new_region):
    home, away = new_region(), new_region()
    home.instance("orders", StorageEncrypted=True, KmsKeyId=home.key())
    home.psql("orders", "create table t as select generate_series(1, 1000) as n").value
    source = home.snapshot("shot", "orders", Tags=pairs(proof="p1", team="payments"))
    assert (source["Encrypted"], source["KmsKeyId"]) == (True, home.key())
    rds.configure(copyMs=HELD)
    answer = away.client.copy_db_snapshot(
        SourceDBSnapshotIdentifier=source["DBSnapshotArn"],
        TargetDBSnapshotIdentifier="Shot-Copy",
        KmsKeyId=away.key(),
        Tags=pairs(copy="c1"),
        SourceRegion=home.name,
    )["DBSnapshot"]
    assert (answer["Status"], answer["PercentProgress"]) == ("pending", 0)
    rds.configure(copyMs=8000)
    away.wait_snapshot("shot-copy", "copying")
    rds.configure(copyMs=120)
    copy = away.wait_snapshot("shot-copy")
    assert (copy["Encrypted"], copy["KmsKeyId"]) == (True, away.key())
    assert (copy["SourceRegion"], copy["SourceDBSnapshotIdentifier"]) == (home.name, source["DBSnapshotArn"])
    assert copy["OriginalSnapshotCreateTime"] == source["OriginalSnapshotCreateTime"]
    assert copy["SnapshotCreateTime"] > source["SnapshotCreateTime"]
    for same in ["DBInstanceIdentifier", "DbiResourceId", "EngineVersion", "AllocatedStorage", "MasterUsername"]:
        assert copy[same] == source[same]
    assert tags_of(copy) == {"copy": "c1"}, "CopyTags is off by default"
    # The copy stands by itself: its source and even the source's instance may go.
    home.client.delete_db_snapshot(DBSnapshotIdentifier="shot")
    restored = away.restore("orders", "shot-copy")
    assert restored["KmsKeyId"] == away.key()
    assert rows(away, "orders", "select sum(n) from t") == "500500"


def test_tags_are_copied_on_request_and_own_ones_win(new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("shot", "orders", Tags=pairs(proof="p1", team="payments"))
    away.client.copy_db_snapshot(
        SourceDBSnapshotIdentifier=source["DBSnapshotArn"],
        TargetDBSnapshotIdentifier="copy",
        CopyTags=True,
        Tags=pairs(team="dr"),
    )
    assert tags_of(away.wait_snapshot("copy")) == {"proof": "p1", "team": "dr"}


def test_encryption_of_copies(new_region):
    home, away = new_region(), new_region()
    home.instance("plain")
    home.instance("locked", StorageEncrypted=True)
    plain, locked = home.snapshot("plain", "plain"), home.snapshot("locked", "locked")
    assert (plain["Encrypted"], "KmsKeyId" in plain) == (False, False)
    copies = [
        (away, plain, "a", {}, None),
        (away, plain, "b", {"KmsKeyId": away.key()}, away.key()),
        (home, locked, "c", {}, locked["KmsKeyId"]),
        (home, locked, "d", {"KmsKeyId": home.key(2)}, home.key(2)),
    ]
    for where, source, name, parameters, key in copies:
        where.client.copy_db_snapshot(
            SourceDBSnapshotIdentifier=source["DBSnapshotArn"], TargetDBSnapshotIdentifier=name, **parameters
        )
        copy = where.wait_snapshot(name)
        assert (copy["Encrypted"], copy.get("KmsKeyId")) == (key is not None, key), name
    refused = wire_error(
        away.client.copy_db_snapshot,
        SourceDBSnapshotIdentifier=locked["DBSnapshotArn"],
        TargetDBSnapshotIdentifier="e",
    )
    assert refused[:2] == ("InvalidParameterValue", 400)
    foreign = wire_error(
        away.client.copy_db_snapshot,
        SourceDBSnapshotIdentifier=locked["DBSnapshotArn"],
        TargetDBSnapshotIdentifier="e",
        KmsKeyId=home.key(),
    )
    assert foreign[:2] == ("KMSKeyNotAccessibleFault", 400)


def test_deleting_the_source_fails_its_copy(rds, new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("shot", "orders")
    rds.configure(copyMs=8000)
    away.client.copy_db_snapshot(
        SourceDBSnapshotIdentifier=source["DBSnapshotArn"], TargetDBSnapshotIdentifier="copy"
    )
    poll(lambda: away.look_snapshot("copy"), lambda seen: seen["Status"] == "copying")
    place = Path(away.state()["snapshots"]["copy"]["dir"])
    home.client.delete_db_snapshot(DBSnapshotIdentifier="shot")
    assert away.look_snapshot("copy")["Status"] == "failed"
    poll(place.exists, lambda there: not there)
    assert away.look_snapshot("copy")["Status"] == "failed"


def test_a_copy_under_way_can_be_cancelled_by_deleting_it(rds, new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    source = home.snapshot("shot", "orders")
    rds.configure(copyMs=HELD)
    away.client.copy_db_snapshot(
        SourceDBSnapshotIdentifier=source["DBSnapshotArn"], TargetDBSnapshotIdentifier="copy"
    )
    place = Path(away.state()["snapshots"]["copy"]["dir"])
    away.client.delete_db_snapshot(DBSnapshotIdentifier="copy")
    assert away.client.describe_db_snapshots()["DBSnapshots"] == []
    rds.configure(copyMs=120)
    poll(place.exists, lambda there: not there)


def test_deleting_a_snapshot_removes_its_files(region):
    region.instance("orders")
    region.snapshot("shot", "orders")
    place = Path(region.state()["snapshots"]["shot"]["dir"])
    assert (place / "data" / "PG_VERSION").exists()
    region.client.delete_db_snapshot(DBSnapshotIdentifier="shot")
    poll(place.exists, lambda there: not there)
    assert wire_error(region.look_snapshot, "shot")[:2] == ("DBSnapshotNotFound", 404)


def test_a_snapshot_can_be_deleted_while_it_is_being_restored(region):
    region.instance("orders")
    region.psql("orders", "create table t as select generate_series(1, 100000) as n").value
    region.snapshot("shot", "orders")
    region.client.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="restored", DBSnapshotIdentifier="shot")
    region.client.delete_db_snapshot(DBSnapshotIdentifier="shot")
    region.wait_instance("restored")
    assert rows(region, "restored", "select count(*) from t") == "100000"


def test_a_stopped_instance_can_be_snapshotted(region):
    region.instance("orders")
    region.psql("orders", "create table t as select 1 as n").value
    region.client.stop_db_instance(DBInstanceIdentifier="orders")
    region.wait_instance("orders", "stopped")
    region.client.create_db_snapshot(DBSnapshotIdentifier="shot", DBInstanceIdentifier="orders")
    region.wait_snapshot("shot")
    assert region.look("orders")["DBInstanceStatus"] == "stopped"
    region.restore("restored", "shot")
    assert rows(region, "restored", "select n from t") == "1"


def test_unlogged_tables_come_back_empty(region):
    region.instance("orders")
    region.psql("orders", "create unlogged table scratch as select generate_series(1, 10) as n").value
    region.snapshot("shot", "orders")
    region.restore("restored", "shot")
    assert rows(region, "restored", "select count(*) from scratch") == "0"


def test_instance_tags_go_to_the_snapshot_when_the_instance_says_so(region):
    region.instance("orders", Tags=pairs(team="payments"), CopyTagsToSnapshot=True)
    assert tags_of(region.snapshot("one", "orders")) == {"team": "payments"}
    assert tags_of(region.snapshot("two", "orders", Tags=pairs(own="yes"))) == {"own": "yes"}


def test_automated_snapshots_go_with_their_instance_and_their_copies_stay(new_region):
    home, away = new_region(), new_region()
    home.instance("orders")
    home.rds.order("automated-snapshots", {"region": home.name, "instance": "orders"})
    listed = home.client.describe_db_snapshots(SnapshotType="automated")["DBSnapshots"]
    name = listed[0]["DBSnapshotIdentifier"]
    assert name.startswith("rds:orders-20") and listed[0]["SnapshotType"] == "automated"
    home.wait_snapshot(name)
    home.wait_instance("orders")
    refused = wire_error(home.client.delete_db_snapshot, DBSnapshotIdentifier=name)
    assert refused[:2] == ("InvalidDBSnapshotState", 400)
    copy = {"SourceDBSnapshotIdentifier": home.arn("snapshot", name), "TargetDBSnapshotIdentifier": "copy"}
    away.client.copy_db_snapshot(**copy)
    assert away.wait_snapshot("copy")["SnapshotType"] == "manual"
    place = Path(home.state()["snapshots"][name]["dir"])
    home.client.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    home.wait_gone("orders")
    assert home.client.describe_db_snapshots()["DBSnapshots"] == [] and not place.exists()
    away.restore("orders", "copy")
    assert away.psql("orders", "select 1").value == "1"

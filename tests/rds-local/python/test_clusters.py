"""Aurora and Multi-AZ DB clusters: one real server behind all members; snapshots, copies and restores of it."""

import datetime

import pytest

from harness import HELD, PASSWORD, pairs, tags_of, wire_error
from test_mariadb import value

SNAPSHOT_IDS = 63
MULTI_AZ = {"Engine": "postgres", "DBClusterInstanceClass": "db.m6gd.large", "AllocatedStorage": 100, "Iops": 1000,
            "StorageType": "io1"}


def members(region, cluster):
    return {one["DBInstanceIdentifier"]: one["IsClusterWriter"]
            for one in region.look_cluster(cluster)["DBClusterMembers"]}


def delete(region, name, **parameters):
    given = {"SkipFinalSnapshot": True} | parameters
    return region.client.delete_db_cluster(DBClusterIdentifier=name, **given)


def restore(region, name, snapshot, **parameters):
    given = {"Engine": "aurora-postgresql"} | parameters
    region.client.restore_db_cluster_from_snapshot(DBClusterIdentifier=name, SnapshotIdentifier=snapshot, **given)
    return region.wait_cluster(name)


def copy(region, source, name, **parameters):
    return region.client.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier=source, TargetDBClusterSnapshotIdentifier=name, **parameters)


def test_members_lead_to_one_server_and_the_first_is_the_writer(region):
    region.cluster("shop", members=2, Tags=pairs(team="payments"))
    seen = region.look_cluster("shop")
    assert members(region, "shop") == {"shop-1": True, "shop-2": False}
    assert seen["AllocatedStorage"] == 1 and seen["Engine"] == "aurora-postgresql"
    assert seen["DbClusterResourceId"].startswith("cluster-") and tags_of(seen) == {"team": "payments"}
    region.psql("shop-1", "create table t as select generate_series(1, 5) n").value
    assert region.psql("shop-2", "select count(*) from t").value == "5"
    assert region.psql("", "select count(*) from t", port=seen["Port"]).value == "5"
    for name in ["shop-1", "shop-2"]:
        assert region.look(name)["DBClusterIdentifier"] == "shop"
    filtered = region.client.describe_db_instances(Filters=[{"Name": "db-cluster-id", "Values": ["shop"]}])
    assert len(filtered["DBInstances"]) == 2


def test_an_aurora_cluster_without_members_lets_nobody_in(region):
    region.cluster("shop", members=0)
    port = region.look_cluster("shop")["Port"]
    assert not region.psql("", "select 1", port=port).fine
    region.member("shop", "one")
    assert region.psql("", "select 1", port=port).value == "1"
    region.client.delete_db_instance(DBInstanceIdentifier="one")
    region.wait_gone("one")
    assert not region.psql("", "select 1", port=port).fine
    assert region.look_cluster("shop")["Status"] == "available"


def test_the_next_member_writes_when_the_writer_is_deleted(region):
    region.cluster("shop", members=2)
    region.client.delete_db_instance(DBInstanceIdentifier="shop-1", SkipFinalSnapshot=True)
    region.wait_gone("shop-1")
    assert members(region, "shop") == {"shop-2": True}
    region.psql("shop-2", "create table t (n int)").value


def test_a_cluster_goes_after_its_members(region):
    region.cluster("shop", DeletionProtection=True)
    assert wire_error(delete, region, "shop")[:2] == ("InvalidParameterCombination", 400)
    region.client.modify_db_cluster(DBClusterIdentifier="shop", DeletionProtection=False)
    assert wire_error(delete, region, "shop")[:2] == ("InvalidDBClusterStateFault", 400)
    assert wire_error(delete, region, "shop", SkipFinalSnapshot=False)[0] == "InvalidDBClusterStateFault"
    final = {"DBInstanceIdentifier": "shop-1", "FinalDBSnapshotIdentifier": "last"}
    assert wire_error(region.client.delete_db_instance, **final)[:2] == ("InvalidParameterCombination", 400)
    region.client.delete_db_instance(DBInstanceIdentifier="shop-1")
    # A member that is being deleted does not hold its cluster back.
    assert delete(region, "shop")["DBCluster"]["Status"] == "deleting"
    region.wait_cluster_gone("shop")
    region.wait_gone("shop-1")
    assert region.state()["clusters"] == {}


def test_a_final_cluster_snapshot_stays(region):
    region.cluster("shop", members=0)
    region.client.delete_db_cluster(DBClusterIdentifier="shop", FinalDBSnapshotIdentifier="last")
    region.wait_cluster_gone("shop")
    assert region.wait_cluster_snapshot("last")["DBClusterIdentifier"] == "shop"


def test_the_master_password_of_a_cluster_is_really_changed(rds, region):
    region.cluster("shop")
    rds.configure(statusMs=HELD)
    region.client.modify_db_cluster(
        DBClusterIdentifier="shop", MasterUserPassword="second-Secret", ApplyImmediately=True)
    assert region.look_cluster("shop")["PendingModifiedValues"] == {"MasterUserPassword": "****"}
    rds.configure(statusMs=40)
    region.wait_cluster("shop")
    assert region.psql("shop-1", "select 1", password="second-Secret").value == "1"
    assert not region.psql("shop-1", "select 1", password=PASSWORD).fine
    own = {"DBInstanceIdentifier": "shop-1", "MasterUserPassword": "third-Secret"}
    assert wire_error(region.client.modify_db_instance, **own)[:2] == ("InvalidParameterCombination", 400)


def test_a_cluster_snapshot_holds_the_data_and_restores_without_members(region):
    region.cluster("shop", StorageEncrypted=True, KmsKeyId=region.key())
    region.psql("shop-1", "create table t as select generate_series(1, 1000) n").value
    seen = region.cluster_snapshot("shot", "shop", Tags=pairs(own="yes"))
    assert (seen["SnapshotType"], seen["AllocatedStorage"], seen["Port"]) == ("manual", 0, 0)
    assert seen["StorageEncrypted"] and seen["KmsKeyId"] == region.key() and tags_of(seen) == {"own": "yes"}
    assert "OriginalSnapshotCreateTime" not in seen
    region.psql("shop-1", "drop table t").value
    back = restore(region, "back", "shot", Tags=pairs(lease="1"))
    assert back["DBClusterMembers"] == [] and back["KmsKeyId"] == region.key() and tags_of(back) == {"lease": "1"}
    region.member("back", "back-1")
    assert region.psql("back-1", "select count(*) from t").value == "1000"
    again = {"DBInstanceIdentifier": "direct", "DBClusterSnapshotIdentifier": "shot"}
    assert wire_error(region.client.restore_db_instance_from_db_snapshot, **again)[:2] == (
        "InvalidParameterCombination", 400)


def test_a_member_cannot_be_snapshotted_by_itself(region):
    region.cluster("shop")
    own = {"DBSnapshotIdentifier": "shot", "DBInstanceIdentifier": "shop-1"}
    code, status, message = wire_error(region.client.create_db_snapshot, **own)
    assert (code, status) == ("InvalidParameterValue", 400) and "shop" in message


def test_serverless_members_need_a_scaling_configuration(region):
    region.cluster("shop", members=0)
    wanted = {"DBInstanceIdentifier": "one", "DBClusterIdentifier": "shop", "Engine": "aurora-postgresql",
              "DBInstanceClass": "db.serverless"}
    assert wire_error(region.client.create_db_instance, **wanted)[:2] == ("InvalidDBClusterStateFault", 400)
    for wrong in [{"MinCapacity": 2.0, "MaxCapacity": 1.0}, {"MinCapacity": 0.3, "MaxCapacity": 1.0},
                  {"MinCapacity": 0.5}]:
        change = {"DBClusterIdentifier": "shop", "ServerlessV2ScalingConfiguration": wrong}
        assert wire_error(region.client.modify_db_cluster, **change)[0] == "InvalidParameterValue"
    scaling = {"MinCapacity": 0.5, "MaxCapacity": 2.0}
    region.client.modify_db_cluster(DBClusterIdentifier="shop", ServerlessV2ScalingConfiguration=scaling)
    region.client.create_db_instance(**wanted)
    region.wait_instance("one")
    assert region.look_cluster("shop")["ServerlessV2ScalingConfiguration"] == scaling


def test_a_member_waits_for_its_cluster(rds, region):
    rds.configure(statusMs=HELD)
    region.begin_cluster("shop")
    wanted = {"DBInstanceIdentifier": "one", "DBClusterIdentifier": "shop", "Engine": "aurora-postgresql",
              "DBInstanceClass": "db.r6g.large"}
    assert wire_error(region.client.create_db_instance, **wanted)[:2] == ("InvalidDBClusterStateFault", 400)
    rds.configure(statusMs=40)
    region.wait_cluster("shop")
    missing = wanted | {"DBClusterIdentifier": "absent"}
    assert wire_error(region.client.create_db_instance, **missing)[:2] == ("DBClusterNotFoundFault", 404)
    named = wanted | {"MasterUserPassword": "first-Secret"}
    assert wire_error(region.client.create_db_instance, **named)[:2] == ("InvalidParameterCombination", 400)
    alone = {key: value for key, value in wanted.items() if key != "DBClusterIdentifier"}
    master = {"MasterUsername": "boss", "MasterUserPassword": "first-Secret", "AllocatedStorage": 20}
    assert wire_error(region.client.create_db_instance, **alone, **master)[:2] == (
        "InvalidParameterCombination", 400)


def test_a_multi_az_cluster_has_three_members_of_rds(region):
    region.begin_cluster("shop", **MULTI_AZ)
    seen = region.wait_cluster("shop")
    assert seen["DBClusterInstanceClass"] == "db.m6gd.large" and seen["AllocatedStorage"] == 100
    assert list(members(region, "shop").values()) == [True, False, False]
    for name in members(region, "shop"):
        region.wait_instance(name)
    region.psql("shop-instance-1", "create table t as select generate_series(1, 7) n").value
    assert region.psql("shop-instance-3", "select count(*) from t").value == "7"
    own = {"DBInstanceIdentifier": "shop-instance-1", "SkipFinalSnapshot": True}
    assert wire_error(region.client.delete_db_instance, **own)[:2] == ("InvalidParameterCombination", 400)
    more = {"DBInstanceIdentifier": "one", "DBClusterIdentifier": "shop", "Engine": "postgres",
            "DBInstanceClass": "db.m6gd.large"}
    assert wire_error(region.client.create_db_instance, **more)[:2] == ("InvalidParameterCombination", 400)
    shot = region.cluster_snapshot("shot", "shop")
    assert shot["AllocatedStorage"] == 100 and shot["Port"] == seen["Port"]
    # A single instance is enough to read what is in it.
    region.client.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="single", DBClusterSnapshotIdentifier="shot", DBInstanceClass="db.m6gd.large")
    region.wait_instance("single")
    assert region.psql("single", "select count(*) from t").value == "7"
    delete(region, "shop")
    region.wait_cluster_gone("shop")
    assert "shop-instance-2" not in region.state()["instances"]


def test_cluster_snapshots_are_copied_under_a_key_of_the_destination(new_region):
    home, away = new_region(), new_region()
    home.cluster("shop", StorageEncrypted=True, KmsKeyId=home.key())
    home.psql("shop-1", "create table t as select generate_series(1, 10) n").value
    source = home.cluster_snapshot("shot", "shop", Tags=pairs(own="yes"))["DBClusterSnapshotArn"]
    assert source == home.arn("cluster-snapshot", "shot")
    assert wire_error(copy, away, source, "copy")[:2] == ("InvalidParameterValue", 400)
    assert wire_error(copy, away, source, "copy", KmsKeyId=home.key())[:2] == ("KMSKeyNotAccessibleFault", 400)
    copy(away, source, "copy", KmsKeyId=away.key(), CopyTags=True)
    seen = away.wait_cluster_snapshot("copy")
    assert seen["KmsKeyId"] == away.key() and seen["SourceDBClusterSnapshotArn"] == source
    assert tags_of(seen) == {"own": "yes"}
    assert wire_error(copy, away, source, "copy", KmsKeyId=away.key())[:2] == (
        "DBClusterSnapshotAlreadyExistsFault", 400)
    restore(away, "back", "copy")
    away.member("back", "back-1")
    assert away.psql("back-1", "select count(*) from t").value == "10"


def test_an_unencrypted_cluster_snapshot_takes_no_key(new_region):
    home, away = new_region(), new_region()
    home.cluster("shop", members=0)
    source = home.cluster_snapshot("shot", "shop")["DBClusterSnapshotArn"]
    assert wire_error(copy, away, source, "copy", KmsKeyId=away.key())[:2] == ("InvalidParameterCombination", 400)
    copy(away, source, "copy")
    assert not away.wait_cluster_snapshot("copy")["StorageEncrypted"]


def test_cluster_copies_have_slots_and_a_quota_of_their_own(rds, new_region):
    home, away = new_region(), new_region()
    home.cluster("shop", members=0)
    source = home.cluster_snapshot("shot", "shop")["DBClusterSnapshotArn"]
    rds.configure(copyMs=HELD)
    for number in range(5):
        copy(away, source, f"copy-{number}")
    wanted = ("SnapshotQuotaExceeded", 400, "Cannot copy more than 5 snapshots across regions")
    assert wire_error(copy, away, source, "one-more") == wanted
    rds.configure(copyMs=120, clusterSnapshotQuota=1)
    new = {"DBClusterSnapshotIdentifier": "two", "DBClusterIdentifier": "shop"}
    assert wire_error(home.client.create_db_cluster_snapshot, **new) == (
        "SnapshotQuotaExceeded", 400, "Cannot create more than 1 manual snapshots")
    quotas = {one["AccountQuotaName"]: (one["Used"], one["Max"])
              for one in home.client.describe_account_attributes()["AccountQuotas"]}
    assert quotas["ManualClusterSnapshots"] == (1, 1) and quotas["DBClusters"] == (1, 40)
    assert quotas["ManualSnapshots"][0] == 0


def test_clusters_are_limited_with_http_403(rds, region):
    rds.configure(clusterQuota=0)
    assert wire_error(region.begin_cluster, "shop")[:2] == ("DBClusterQuotaExceededFault", 403)


@pytest.mark.parametrize(("action", "parameters", "code", "status"), [
    ("describe_db_clusters", {"DBClusterIdentifier": "absent"}, "DBClusterNotFoundFault", 404),
    ("modify_db_cluster", {"DBClusterIdentifier": "absent"}, "DBClusterNotFoundFault", 404),
    ("delete_db_cluster", {"DBClusterIdentifier": "absent", "SkipFinalSnapshot": True}, "DBClusterNotFoundFault", 404),
    ("describe_db_cluster_snapshots", {"DBClusterSnapshotIdentifier": "absent"}, "DBClusterSnapshotNotFoundFault", 404),
    ("delete_db_cluster_snapshot", {"DBClusterSnapshotIdentifier": "absent"}, "DBClusterSnapshotNotFoundFault", 404),
    ("create_db_cluster_snapshot", {"DBClusterSnapshotIdentifier": "a", "DBClusterIdentifier": "absent"},
     "DBClusterNotFoundFault", 404),
    ("create_db_cluster_snapshot", {"DBClusterSnapshotIdentifier": "a" * (SNAPSHOT_IDS + 1),
                                    "DBClusterIdentifier": "absent"}, "InvalidParameterValue", 400),
    ("restore_db_cluster_from_snapshot", {"DBClusterIdentifier": "a", "SnapshotIdentifier": "absent",
                                          "Engine": "aurora-postgresql"}, "DBClusterSnapshotNotFoundFault", 404),
    ("create_db_cluster", {"DBClusterIdentifier": "a", "Engine": "postgres", "MasterUsername": "boss",
                           "MasterUserPassword": PASSWORD}, "InvalidParameterCombination", 400),
    ("create_db_cluster", {"DBClusterIdentifier": "a", "Engine": "aurora-postgresql", "MasterUsername": "boss",
                           "MasterUserPassword": PASSWORD, "BackupRetentionPeriod": 0}, "InvalidParameterValue", 400),
    ("create_db_cluster", {"DBClusterIdentifier": "a", "Engine": "aurora-postgresql", "MasterUsername": "boss",
                           "MasterUserPassword": PASSWORD, "DBClusterParameterGroupName": "absent"},
     "DBClusterParameterGroupNotFound", 404),
])
def test_each_refusal_has_its_wire_code(region, action, parameters, code, status):
    assert wire_error(getattr(region.client, action), **parameters)[:2] == (code, status)


def test_a_snapshot_is_refused_while_one_is_taken(rds, region):
    region.cluster("shop", members=0)
    assert wire_error(region.begin_cluster, "shop")[:2] == ("DBClusterAlreadyExistsFault", 400)
    rds.configure(statusMs=HELD)
    region.client.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="one", DBClusterIdentifier="shop")
    assert region.look_cluster("shop")["Status"] == "backing-up"
    new = {"DBClusterSnapshotIdentifier": "two", "DBClusterIdentifier": "shop"}
    assert wire_error(region.client.create_db_cluster_snapshot, **new)[:2] == ("InvalidDBClusterStateFault", 400)
    early = {"DBClusterIdentifier": "back", "SnapshotIdentifier": "one", "Engine": "aurora-postgresql"}
    assert wire_error(region.client.restore_db_cluster_from_snapshot, **early)[:2] == (
        "InvalidDBClusterSnapshotStateFault", 400)
    rds.configure(statusMs=40)
    region.wait_cluster_snapshot("one")


def test_cluster_snapshots_are_listed_in_pages_and_by_kind(rds, region):
    region.cluster("shop", members=0)
    for number in range(21):
        region.cluster_snapshot(f"shot-{number:02}", "shop")
    first = region.client.describe_db_cluster_snapshots(DBClusterIdentifier="shop", MaxRecords=20)
    rest = region.client.describe_db_cluster_snapshots(DBClusterIdentifier="shop", Marker=first["Marker"])
    names = [one["DBClusterSnapshotIdentifier"] for page in (first, rest) for one in page["DBClusterSnapshots"]]
    assert names == [f"shot-{number:02}" for number in range(21)] and "Marker" not in rest
    rds.order("automated-snapshots", {"region": region.name, "cluster": "shop"})
    listed = region.client.describe_db_cluster_snapshots(SnapshotType="automated")["DBClusterSnapshots"]
    name = listed[0]["DBClusterSnapshotIdentifier"]
    assert name.startswith(f"rds:shop-{datetime.datetime.now(datetime.UTC).year}")
    # By its identifier it is found only with its type beside it.
    assert wire_error(region.client.describe_db_cluster_snapshots, DBClusterSnapshotIdentifier=name)[0] == (
        "DBClusterSnapshotNotFoundFault")
    found = region.client.describe_db_cluster_snapshots(
        DBClusterSnapshotIdentifier=name, SnapshotType="automated")["DBClusterSnapshots"]
    assert len(found) == 1


def test_tags_of_clusters_and_their_snapshots_are_changed_by_arn(region):
    region.cluster("shop", members=0)
    region.cluster_snapshot("shot", "shop")
    for kind, name in [("cluster", "shop"), ("cluster-snapshot", "shot")]:
        arn = region.arn(kind, name)
        region.client.add_tags_to_resource(ResourceName=arn, Tags=pairs(a="1", b="2"))
        region.client.remove_tags_from_resource(ResourceName=arn, TagKeys=["a"])
        assert tags_of(region.client.list_tags_for_resource(ResourceName=arn)) == {"b": "2"}


def test_a_snapshot_of_aws_backup_is_listed_by_its_type_and_not_deleted(rds, region):
    region.instance("orders")
    rds.order("automated-snapshots", {"region": region.name, "instance": "orders", "by": "awsBackup"})
    assert region.client.describe_db_snapshots()["DBSnapshots"] == []
    [seen] = region.client.describe_db_snapshots(SnapshotType="awsbackup")["DBSnapshots"]
    name = seen["DBSnapshotIdentifier"]
    assert name.startswith("awsbackup:job-")
    assert wire_error(region.client.delete_db_snapshot, DBSnapshotIdentifier=name)[:2] == (
        "InvalidDBSnapshotState", 400)


def test_faults_reach_clusters_too(region):
    region.fault("CreateDBCluster", {"outcome": "never-available"})
    region.begin_cluster("stuck")
    region.fault("CreateDBCluster", {"outcome": "incompatible-network"})
    region.begin_cluster("lost")
    region.wait_cluster("lost", "incompatible-network")
    assert region.look_cluster("stuck")["Status"] == "creating"
    delete(region, "stuck")
    delete(region, "lost")


def test_aurora_mysql_is_a_mariadb_server_under_auroras_version(region):
    region.cluster("shop", members=0, Engine="aurora-mysql", EngineVersion=None)
    region.member("shop", "shop-1", Engine="aurora-mysql")
    seen = region.look_cluster("shop")
    assert seen["EngineVersion"].startswith("8.0.mysql_aurora.3.")
    assert seen["DBClusterParameterGroup"] == "default.aurora-mysql8.0"
    value(region, "shop-1", "create table t (n int primary key); insert into t values (1), (2), (3)")
    region.cluster_snapshot("shot", "shop")
    restore(region, "back", "shot", Engine="aurora-mysql")
    region.member("back", "back-1", Engine="aurora-mysql")
    assert value(region, "back-1", "select count(*) from t") == "3"

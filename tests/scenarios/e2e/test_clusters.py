"""Aurora and Multi-AZ clusters, and snapshots that Lifeboat did not take: through the deployed stack, IAM enforced."""

import json

import pytest
from stage import until
from test_backups import QUIET, backup, entered

QUICK = {"validation": {"depth": "quick"}}


@pytest.fixture(scope="module")
def shop(stage):
    """An Aurora PostgreSQL cluster with a table, and an index to be damaged."""
    shop = stage.create_cluster("shop-cluster", Tags=[{"Key": "tier", "Value": "aurora"}])
    shop.sql("create table item (id int primary key, name text not null)",
             "insert into item select n, 'item ' || n from generate_series(1, 5000) n", "checkpoint")
    return shop


def cluster_copies(stage, region, name):
    listed = stage.cloud.client("rds", region).describe_db_cluster_snapshots()["DBClusterSnapshots"]
    return [copy for copy in listed if copy["DBClusterSnapshotIdentifier"] == name]


def tags_of(described):
    return {tag["Key"]: tag["Value"] for tag in described["TagList"]}


def test_an_aurora_cluster_is_backed_up_proven_and_copied(stage, shop):
    ended, operation = backup(stage, {"database": shop.name, "tags": {"Owner": "ada"}})
    assert ended["status"] == "SUCCEEDED", ended
    output = ended["output"]
    assert (output["proof"]["verdict"], output["proof"]["level"]) == ("proven", "content")
    assert output["proof"]["rowCount"] >= 5000 and output["proof"]["rpoSeconds"] is not None
    [snapshot] = cluster_copies(stage, "us-east-1", output["snapshotId"])
    assert tags_of(snapshot)["lifeboat:proof"] == "proven" and tags_of(snapshot)["Owner"] == "ada"
    for region in ("us-west-2", "eu-west-1"):
        [copy] = cluster_copies(stage, region, output["snapshotId"])
        assert copy["KmsKeyId"] == stage.keys[region] and copy["StorageEncrypted"]
        carried = tags_of(copy)
        assert (carried["lifeboat:role"], carried["lifeboat:source-arn"]) == ("copy", snapshot["DBClusterSnapshotArn"])
        assert carried["lifeboat:taken-at"][:19] == snapshot["SnapshotCreateTime"].isoformat()[:19]
    described = operation["result"]["database"]
    assert described["databaseKind"] == "cluster" and described["settings"]["instanceClass"] == "db.r6g.large"


def test_a_damaged_cluster_backup_is_refused(stage, shop):
    execution = stage.start_damaged({"selector": {"tag": {"key": "tier", "value": "aurora"}}}, shop.database,
                                    {"zeroPage": {"table": "public.item", "block": 2}})
    ended = stage.finish(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.BackupUnproven"), ended
    snapshot = stage.operation(execution)["plan"]["snapshotId"]
    [kept] = cluster_copies(stage, "us-east-1", snapshot)
    assert tags_of(kept)["lifeboat:proof"] == "unproven"
    assert cluster_copies(stage, "us-west-2", snapshot) == []
    assert any("public.item" in alert["message"] for alert in stage.alerts("Critical"))


def test_lost_answers_about_a_cluster_are_outlived(stage, shop):
    for action in ("CreateDBClusterSnapshot", "RestoreDBClusterFromSnapshot", "CreateDBInstance", "ModifyDBCluster",
                   "DeleteDBInstance", "DeleteDBCluster", "CopyDBClusterSnapshot"):
        stage.cloud.control("faults", {"action": action, "nth": 1, "count": 1, "effect": {"loseAnswer": True}})
    ended, operation = backup(stage, {"database": shop.name, "targetRegions": ["us-west-2"]})
    assert ended["status"] == "SUCCEEDED", ended
    assert len(cluster_copies(stage, "us-west-2", operation["plan"]["snapshotId"])) == 1


def test_used_up_cluster_copy_slots_are_waited_for_in_a_quick_backup(stage, shop):
    stage.cloud.control("config", {"clusterCopySlots": 0})
    execution = stage.start("BackupOrchestration", {"database": shop.name, "targetRegions": ["us-west-2"], **QUICK})
    try:
        until("the copy is being waited for", lambda: "WaitForCopy" in entered(stage, execution))
    finally:
        stage.cloud.control("config", {"clusterCopySlots": 5})
    ended = stage.finish(execution)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["proof"]["level"] == "quick", ended


def test_a_cluster_that_comes_to_nothing_is_named_and_disposed_of(stage, shop):
    stage.cloud.control("faults", {"action": "RestoreDBClusterFromSnapshot", "nth": 1, "count": 1,
                                   "effect": {"outcome": "incompatible-network"}})
    ended, operation = backup(stage, {"database": shop.name, **QUIET})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.RestoreIncompatible"), ended
    assert operation["status"] == "failed"


def test_a_member_is_refused_with_its_clusters_name(stage, shop):
    ended, operation = backup(stage, {"database": f"{shop.name}-1", **QUIET})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.InvalidInput"), ended
    assert f"`{shop.name}`" in operation["error"]["message"]


def test_a_multi_az_cluster_is_proven_on_one_instance(stage):
    trio = stage.create_cluster("trio-cluster", DBClusterInstanceClass="db.m6gd.large", AllocatedStorage=100,
                                StorageType="io1", Iops=1000)
    trio.sql("create table t as select generate_series(1, 300) n")
    execution = stage.start("BackupOrchestration", {"database": trio.name, **QUIET})
    ended = stage.finish(execution)
    assert ended["status"] == "SUCCEEDED" and ended["output"]["proof"]["verdict"] == "proven", ended
    [snapshot] = cluster_copies(stage, "us-east-1", ended["output"]["snapshotId"])
    assert snapshot["Engine"] == "postgres"


def test_an_unencrypted_cluster_is_refused_at_the_beginning_if_it_is_to_be_copied_and_else_proven(stage):
    plain = stage.create_cluster("plain-cluster", StorageEncrypted=None, KmsKeyId=None)
    ended, operation = backup(stage, {"database": plain.name, "targetRegions": ["us-west-2"], **QUICK})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.SnapshotUnencrypted"), ended
    assert cluster_copies(stage, "us-east-1", operation["plan"]["snapshotId"]) == [], "nothing was begun"
    assert any("Dr.SnapshotUnencrypted" in alert["subject"] for alert in stage.alerts("Critical"))
    ended, _ = backup(stage, {"database": plain.name, **QUIET})
    assert ended["status"] == "SUCCEEDED" and ended["output"]["proof"]["level"] == "content", ended


def test_a_serverless_cluster_is_backed_up_in_a_fleet_restored_with_its_capacity_and_proven_again_later(stage):
    capacity = {"MinCapacity": 0.5, "MaxCapacity": 4.0}
    tier = [{"Key": "Tier", "Value": "mixed"}]
    cluster = stage.create_cluster("burst-cluster", member_class="db.serverless", Tags=tier,
                                   ServerlessV2ScalingConfiguration=capacity)
    cluster.sql("create table burst as select generate_series(1, 400) n", "checkpoint")
    stage.create_database("burst-db", Tags=tier)
    rds = stage.cloud.client("rds")
    member = rds.describe_db_instances(DBInstanceIdentifier="burst-cluster-1")["DBInstances"][0]["DBInstanceArn"]
    rds.add_tags_to_resource(ResourceName=member, Tags=tier)
    run = stage.start("FleetBackup", {"fleet": "mixed", "selector": {"tag": {"key": "Tier", "value": "mixed"}},
                                      "maxConcurrency": 2, "backup": QUIET})

    def restored():
        for one in rds.describe_db_clusters()["DBClusters"]:
            if one["DBClusterIdentifier"].startswith("lifeboat-tmp-") and one["DBClusterMembers"]:
                [member] = one["DBClusterMembers"]
                found = rds.describe_db_instances(
                    Filters=[{"Name": "db-instance-id", "Values": [member["DBInstanceIdentifier"]]}])["DBInstances"]
                if found:
                    return one["ServerlessV2ScalingConfiguration"], found[0]["DBInstanceClass"]
        return None
    seen, instance_class = until("a temporary cluster with its member", restored, pause=0.02)
    assert ({key: seen[key] for key in capacity}, instance_class) == (capacity, "db.serverless")
    ended = stage.finish(run)
    assert ended["status"] == "SUCCEEDED", ended
    summary = stage.operation(run)["result"]
    assert (summary["total"], summary["succeeded"], summary["skipped"], summary["attention"]) == (2, 2, 1, []), summary
    [snapshot] = [one for one in rds.describe_db_cluster_snapshots()["DBClusterSnapshots"]
                  if one["DBClusterIdentifier"] == cluster.name]
    tags = tags_of(snapshot)
    assert (tags["lifeboat:proof"], tags["lifeboat:proof-level"]) == ("proven", "content")
    # The cluster's snapshot is a recovery point for a later proof.
    later = stage.run("ProveBackup", {"selector": {"random": {"database": cluster.name}}})
    assert later["status"] == "SUCCEEDED" and later["output"]["verdict"] == "proven", later
    chosen = stage.operation(later["executionArn"])["checkpoints"]["chosen"]["chosen"]
    assert (chosen["databaseKind"], chosen["snapshotId"]) == ("cluster", snapshot["DBClusterSnapshotIdentifier"])


def test_the_copy_of_an_unencrypted_database_is_encrypted(stage):
    plain = stage.create_database("plain-db", StorageEncrypted=None, KmsKeyId=None)
    ended, _ = backup(stage, {"database": plain.name, "targetRegions": ["us-west-2"], **QUICK})
    assert ended["status"] == "SUCCEEDED", ended
    name = ended["output"]["snapshotId"]
    [copy] = stage.cloud.client("rds", "us-west-2").describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"]
    assert copy["Encrypted"] and copy["KmsKeyId"] == stage.keys["us-west-2"]


def replicate(stage, snapshot, region="us-west-2"):
    """Brings a snapshot into a Region by hand, as a person would: one call after the other."""
    payload = {"copy": {
        "operationId": "backup-00000000000000aa", "snapshotId": snapshot["id"], "snapshotArn": snapshot["arn"],
        "region": region, "startedAt": stage.now()}}

    def done():
        answer, error = stage.invoke("ReplicateToRegion", payload)
        return error or (answer["status"] == "done" and answer)
    return until(f"{snapshot['id']} replicated", done)


@pytest.mark.parametrize("kind", ["instance", "cluster"])
def test_an_automated_snapshot_is_proven_and_copied_under_a_legal_name(stage, database, shop, kind):
    source = {"instance": database, "cluster": shop}[kind]
    rds = stage.cloud.client("rds")
    stage.cloud.control("automated-snapshots", {"region": "us-east-1", kind: source.name})

    def available():
        if kind == "instance":
            listed = rds.describe_db_snapshots(SnapshotType="automated")["DBSnapshots"]
            found = [{"id": one["DBSnapshotIdentifier"], "arn": one["DBSnapshotArn"]}
                     for one in listed if one["Status"] == "available"]
        else:
            listed = rds.describe_db_cluster_snapshots(SnapshotType="automated")["DBClusterSnapshots"]
            found = [{"id": one["DBClusterSnapshotIdentifier"], "arn": one["DBClusterSnapshotArn"]}
                     for one in listed if one["Status"] == "available"]
        return found and found[0]
    snapshot = until("an automated snapshot", available)
    assert snapshot["id"].startswith(f"rds:{source.name}-")
    ended = stage.run("ProveBackup", {"snapshotId": snapshot["id"]})
    assert ended["status"] == "SUCCEEDED" and ended["output"]["verdict"] == "proven", ended
    arrived = replicate(stage, snapshot)
    assert arrived["encrypted"] and arrived["snapshotArn"].endswith(snapshot["id"].replace("rds:", ":rds-"))


def test_a_snapshot_of_aws_backup_is_proven_and_not_copied(stage, database):
    rds = stage.cloud.client("rds")
    stage.cloud.control("automated-snapshots", {"region": "us-east-1", "instance": database.name, "by": "awsBackup"})

    def available():
        listed = rds.describe_db_snapshots(SnapshotType="awsbackup")["DBSnapshots"]
        return listed[0]["Status"] == "available" and listed[0]
    snapshot = until("a snapshot of AWS Backup", available)
    ended = stage.run("ProveBackup", {"snapshotId": snapshot["DBSnapshotIdentifier"]})
    assert ended["status"] == "SUCCEEDED" and ended["output"]["verdict"] == "proven", ended
    error = replicate(stage, {"id": snapshot["DBSnapshotIdentifier"], "arn": snapshot["DBSnapshotArn"]})
    assert error["errorType"] == "Dr.SnapshotForeign", json.dumps(error)

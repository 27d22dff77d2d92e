"""MariaDB through the deployed stack, as an instance and behind an Aurora MySQL cluster: a backup that is proven and copied,
and damaged ones that are refused."""

import pytest
from stage import until
from test_backups import backup, copies, entered
from test_clusters import cluster_copies, tags_of

# With a table that has no primary key, a reference and a unique index.
SCHEMA = (
    "create table customer (id int primary key auto_increment, mail varchar(100) not null unique)",
    "create table orders (id int primary key auto_increment, customer int not null, n bigint, v varchar(200), "
    "key by_n (n), foreign key (customer) references customer (id))",
    "create table visits (n bigint)",
    "insert into customer (mail) select concat('c', seq, '@example.com') from seq_1_to_500",
    "insert into orders (customer, n, v) select 1 + seq % 500, seq * 7 % 1000, repeat('x', 150) from seq_1_to_4000",
)


@pytest.fixture(scope="module")
def till(stage):
    database = stage.create_database("till-db", Engine="mariadb", EngineVersion="10.11", DBName="shop")
    database.sql(*SCHEMA)
    return database


def test_a_backup_is_proven_and_copied(stage, till):
    execution = stage.start("BackupOrchestration", {
        "database": till.name, "validation": {"foreignKeys": True, "uniqueConstraints": True}})
    until("the source is framed", lambda: "CreateSnapshot" in entered(stage, execution))
    till.sql("insert into visits select seq from seq_1_to_100", "update orders set n = n + 5000 where id % 400 = 0")
    ended = stage.finish(execution)
    assert ended["status"] == "SUCCEEDED", ended
    proof = ended["output"]["proof"]
    assert (proof["verdict"], proof["level"]) == ("proven", "content")
    assert proof["checks"]["sound"] >= 7 and proof["checks"]["faulty"] == proof["checks"]["notPossible"] == 0
    assert proof["coverage"]["provenRows"] >= 500
    assert proof["rpoSeconds"] is not None
    for region in ("us-west-2", "eu-west-1"):
        [copy] = copies(stage, region, ended["output"]["snapshotId"])
        assert copy["Engine"] == "mariadb" and copy["KmsKeyId"] == stage.keys[region]
    report = stage.report(proof["reportKey"])
    verdicts = {table["name"]["table"]: table["verdict"] for table in report["tables"]}
    assert verdicts["customer"] == "exact" and "different" not in verdicts.values()


DAMAGE = {
    "edited row": {"sql": {"statements": ["update orders set n = -1 where id = 77"]}},
    "flipped bytes": {"flipBytes": {"table": "orders", "block": 5, "offset": 5000}},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_backup_is_refused(stage, till, name):
    execution = stage.start_damaged({"database": till.name}, till.database, DAMAGE[name])
    ended, operation = stage.finish(execution), stage.operation(execution)
    snapshot = operation["plan"]["snapshotId"]
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.BackupUnproven"), ended
    assert "shop.orders" in operation["error"]["message"]
    assert copies(stage, "us-west-2", snapshot) == copies(stage, "eu-west-1", snapshot) == []
    [alert] = [alert for alert in stage.alerts("Critical") if snapshot in alert["message"]]
    assert "shop.orders" in alert["message"]


def test_a_frame_from_a_replica_is_refused_by_name(stage, till):
    ended, operation = backup(stage, {"database": till.name, "validation": {"frameFrom": till.name}})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.InvalidInput"), ended
    assert "writer only" in operation["error"]["message"]


@pytest.fixture(scope="module")
def aurora(stage):
    """A MariaDB server stands in for Aurora MySQL: RDS's side of it is a cluster, its storage is not there."""
    cluster = stage.create_cluster("till-cluster", Engine="aurora-mysql", EngineVersion=None, DatabaseName="shop")
    cluster.sql(*SCHEMA)
    return cluster


def test_an_aurora_mysql_cluster_is_backed_up_proven_and_copied(stage, aurora):
    ended, operation = backup(stage, {"database": aurora.name})
    assert ended["status"] == "SUCCEEDED", ended
    proof = ended["output"]["proof"]
    assert (proof["verdict"], proof["level"]) == ("proven", "content")
    assert proof["rowCount"] >= 4500 and proof["rpoSeconds"] is not None
    described = operation["result"]["database"]
    assert (described["databaseKind"], described["engine"]) == ("cluster", "aurora-mysql")
    [snapshot] = cluster_copies(stage, "us-east-1", ended["output"]["snapshotId"])
    assert tags_of(snapshot)["lifeboat:proof"] == "proven"
    for region in ("us-west-2", "eu-west-1"):
        [copy] = cluster_copies(stage, region, ended["output"]["snapshotId"])
        assert copy["Engine"] == "aurora-mysql" and copy["KmsKeyId"] == stage.keys[region]


def test_a_damaged_backup_of_an_aurora_mysql_cluster_is_refused(stage, aurora):
    execution = stage.start_damaged({"database": aurora.name}, aurora.database, DAMAGE["edited row"])
    ended, operation = stage.finish(execution), stage.operation(execution)
    snapshot = operation["plan"]["snapshotId"]
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.BackupUnproven"), ended
    assert "shop.orders" in operation["error"]["message"]
    assert cluster_copies(stage, "us-west-2", snapshot) == []

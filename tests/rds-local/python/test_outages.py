"""Reboots, failovers, stops and starts: what clients notice, what the API shows meanwhile, and that the data stays."""

import datetime
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError, ConnectionError, HTTPClientError

from harness import HELD, pairs, poll, tags_of, wire_error
from test_clusters import MULTI_AZ, members
from test_mariadb import value

ORDERS = {"DBInstanceIdentifier": "orders"}
SHOP = {"DBClusterIdentifier": "shop"}
STATE, COMBINATION = ("InvalidDBInstanceState", 400), ("InvalidParameterCombination", 400)
CLUSTER_STATE = ("InvalidDBClusterStateFault", 400)
# More rows than a client gets in before the server goes.
MANY = 200_000


def refused(call, **parameters):
    return wire_error(call, **parameters)[:2]


def servers(region, name, kind="instances"):
    return set(region.state()[kind][name]["pids"])


def log(region, name, kind="instances"):
    return Path(region.state()[kind][name]["dir"], "server.log").read_text()


def table(region, instance="orders"):
    region.psql(instance, "create table kept (n serial primary key)").value


def count(region, instance="orders", **settings):
    return int(region.psql(instance, "select count(*) from kept", **settings).value)


def recovers(region, name, kind="instances"):
    return "automatic recovery in progress" in log(region, name, kind)


def poured(region, name, directory, act):
    """Acts while a client writes, and returns how many commits the client was told of before it lost its connection."""
    table(region, name)
    file = directory / "told"
    client = region.pouring(name, "insert into kept default values returning n", MANY, file)
    poll(lambda: count(region, name), lambda seen: seen > 50)
    act()
    assert client.wait(timeout=60) != 0
    told = [int(line) for line in file.read_text().splitlines() if line.isdigit()]
    assert told == list(range(1, len(told) + 1)) and 50 < len(told) < MANY
    return len(told)


def week_away(moment):
    left = moment - datetime.datetime.now(datetime.UTC)
    return datetime.timedelta(days=6, hours=23) < left <= datetime.timedelta(days=7)


# Instances


def test_a_reboot_restarts_the_server_and_cuts_its_clients(rds, region):
    port = region.instance("orders")["Endpoint"]["Port"]
    table(region)
    client, before = region.connected("orders"), servers(region, "orders")
    rds.configure(statusMs=HELD)
    assert region.client.reboot_db_instance(**ORDERS)["DBInstance"]["DBInstanceStatus"] == "rebooting"
    client.lost()
    assert region.look("orders")["DBInstanceStatus"] == "rebooting"
    assert refused(region.client.reboot_db_instance, **ORDERS) == STATE
    rds.configure(statusMs=40)
    assert region.wait_instance("orders")["Endpoint"]["Port"] == port
    assert count(region) == 0
    assert not servers(region, "orders") & before
    assert not recovers(region, "orders"), "it was stopped cleanly"


def test_a_forced_failover_swaps_the_zones_and_keeps_every_commit_that_was_told(rds, region, tmp_path):
    seen = region.instance("orders", MultiAZ=True)
    home, other = seen["AvailabilityZone"], seen["SecondaryAvailabilityZone"]
    assert (home, other) == (f"{region.name}a", f"{region.name}b")

    def fail_over():
        rds.configure(statusMs=HELD)
        region.client.reboot_db_instance(**ORDERS, ForceFailover=True)

    told = poured(region, "orders", tmp_path, fail_over)
    assert region.look("orders")["DBInstanceStatus"] == "rebooting"
    rds.configure(statusMs=40)
    seen = region.wait_instance("orders")
    assert (seen["AvailabilityZone"], seen["SecondaryAvailabilityZone"]) == (other, home)
    assert count(region) >= told
    assert recovers(region, "orders"), "the primary was lost, not stopped"
    region.client.reboot_db_instance(**ORDERS, ForceFailover=True)
    seen = region.wait_instance("orders")
    assert (seen["AvailabilityZone"], seen["SecondaryAvailabilityZone"]) == (home, other)
    region.client.reboot_db_instance(**ORDERS, ForceFailover=False)
    assert region.wait_instance("orders")["AvailabilityZone"] == home
    told = [one["Message"] for one in region.client.describe_events(
        SourceIdentifier="orders", SourceType="db-instance", EventCategories=["failover"])["Events"]]
    assert told == ["Multi-AZ instance failover started.", "Multi-AZ instance failover completed"] * 2


def test_only_an_instance_with_a_standby_fails_over(region):
    assert "SecondaryAvailabilityZone" not in region.instance("orders")
    assert refused(region.client.reboot_db_instance, **ORDERS, ForceFailover=True) == COMBINATION
    assert region.look("orders")["DBInstanceStatus"] == "available"
    region.client.modify_db_instance(**ORDERS, MultiAZ=True, ApplyImmediately=True)
    poll(lambda: region.look("orders"), lambda seen: "SecondaryAvailabilityZone" in seen)
    region.wait_instance("orders")
    region.client.reboot_db_instance(**ORDERS, ForceFailover=True)
    assert region.wait_instance("orders")["AvailabilityZone"] == f"{region.name}b"
    region.client.modify_db_instance(**ORDERS, MultiAZ=False, ApplyImmediately=True)
    poll(lambda: region.look("orders"), lambda seen: "SecondaryAvailabilityZone" not in seen)
    region.wait_instance("orders")
    assert refused(region.client.reboot_db_instance, **ORDERS, ForceFailover=True) == COMBINATION


def test_a_stopped_instance_says_when_rds_starts_it_again(rds, region):
    region.instance("orders", MultiAZ=True)
    table(region)
    client = region.connected("orders")
    rds.configure(statusMs=HELD)
    region.client.stop_db_instance(**ORDERS)
    client.lost()
    assert "AutomaticRestartTime" not in region.look("orders")
    assert refused(region.client.stop_db_instance, **ORDERS) == STATE
    rds.configure(statusMs=40)
    seen = region.wait_instance("orders", "stopped")
    assert week_away(seen["AutomaticRestartTime"])
    assert servers(region, "orders") == set()
    assert "refused" in region.psql("orders", "select 1").error
    for action in ("stop_db_instance", "reboot_db_instance"):
        assert refused(getattr(region.client, action), **ORDERS) == STATE
    rds.configure(statusMs=HELD)
    assert "AutomaticRestartTime" not in region.client.start_db_instance(**ORDERS)["DBInstance"]
    assert region.look("orders")["DBInstanceStatus"] == "starting"
    rds.configure(statusMs=40)
    assert "AutomaticRestartTime" not in region.wait_instance("orders")
    assert count(region) == 0 and not recovers(region, "orders")


def test_a_replica_and_its_source_are_not_stopped(rds, new_region):
    home, away = new_region(), new_region()
    home.fault("CreateDBInstance", {"outcome": "never-available"}, count=2)
    home.begin_instance("near")
    home.begin_instance("unrelated")
    away.fault("CreateDBInstance", {"outcome": "never-available"})
    away.begin_instance("far")
    home.instance("orders")
    rds.order("replication", {"region": home.name, "instance": "near", "source": "orders"})
    rds.order("replication", {"region": away.name, "instance": "far", "source": home.arn("db", "orders")})
    assert set(home.look("orders")["ReadReplicaDBInstanceIdentifiers"]) == {"near", away.arn("db", "far")}
    assert refused(home.client.stop_db_instance, **ORDERS) == STATE
    code, _, message = wire_error(home.client.stop_db_instance, DBInstanceIdentifier="near")
    assert code == "InvalidDBInstanceState" and "read replica" in message
    home.client.delete_db_instance(DBInstanceIdentifier="near", SkipFinalSnapshot=True)
    home.wait_gone("near")
    assert home.look("orders")["ReadReplicaDBInstanceIdentifiers"] == [away.arn("db", "far")]
    assert refused(home.client.stop_db_instance, **ORDERS) == STATE
    rds.order("replication", {"region": away.name, "instance": "far"})
    assert home.look("orders")["ReadReplicaDBInstanceIdentifiers"] == []
    home.client.stop_db_instance(**ORDERS)
    home.wait_instance("orders", "stopped")


def test_mariadb_comes_back_with_what_was_committed(region):
    region.instance("orders", Engine="mariadb", EngineVersion=None, MultiAZ=True)
    value(region, "orders", "create table kept (n int primary key); insert into kept values (1)")
    before = servers(region, "orders")
    region.client.reboot_db_instance(**ORDERS)
    region.wait_instance("orders")
    value(region, "orders", "insert into kept values (2)")
    region.client.reboot_db_instance(**ORDERS, ForceFailover=True)
    assert region.wait_instance("orders")["AvailabilityZone"] == f"{region.name}b"
    assert value(region, "orders", "select group_concat(n order by n) from kept") == "1,2"
    assert not servers(region, "orders") & before
    region.client.stop_db_instance(**ORDERS)
    region.wait_instance("orders", "stopped")
    region.client.start_db_instance(**ORDERS)
    region.wait_instance("orders")
    assert value(region, "orders", "select count(*) from kept") == "2"


# Clusters


def test_a_failover_makes_another_member_the_writer_and_keeps_every_commit_that_was_told(rds, region, tmp_path):
    port = region.cluster("shop", members=2)["Port"]
    on_cluster, on_reader = region.connected("", port=port), region.connected("shop-2")
    before = servers(region, "shop", "clusters")

    def fail_over():
        rds.configure(statusMs=HELD)
        assert region.client.failover_db_cluster(**SHOP)["DBCluster"]["Status"] == "failing-over"

    told = poured(region, "shop-1", tmp_path, fail_over)
    on_cluster.lost()
    on_reader.lost()
    assert region.look_cluster("shop")["Status"] == "failing-over"
    assert region.look("shop-1")["DBInstanceStatus"] == "rebooting"
    poll(lambda: members(region, "shop"), lambda seen: seen == {"shop-1": False, "shop-2": True})
    for action in ("failover_db_cluster", "stop_db_cluster", "start_db_cluster"):
        assert refused(getattr(region.client, action), **SHOP) == CLUSTER_STATE
    rds.configure(statusMs=40)
    region.wait_cluster("shop")
    assert [region.look(name)["DBInstanceStatus"] for name in ("shop-1", "shop-2")] == ["available"] * 2
    assert region.look_cluster("shop")["Port"] == port
    for name, settings in [("", {"port": port}), ("shop-1", {}), ("shop-2", {})]:
        assert count(region, name, **settings) >= told
    assert not servers(region, "shop", "clusters") & before
    assert recovers(region, "shop", "clusters")


def test_a_failover_goes_where_it_is_sent(region):
    region.cluster("shop", members=3)
    region.client.failover_db_cluster(**SHOP, TargetDBInstanceIdentifier="Shop-3")
    region.wait_cluster("shop")
    assert members(region, "shop") == {"shop-1": False, "shop-2": False, "shop-3": True}
    region.client.failover_db_cluster(**SHOP, TargetDBInstanceIdentifier="shop-1")
    region.wait_cluster("shop")
    assert members(region, "shop") == {"shop-1": True, "shop-2": False, "shop-3": False}
    # The next in line writes when the writer is deleted, after a failover too.
    region.client.failover_db_cluster(**SHOP, TargetDBInstanceIdentifier="shop-2")
    region.wait_cluster("shop")
    region.client.delete_db_instance(DBInstanceIdentifier="shop-2")
    region.wait_gone("shop-2")
    assert members(region, "shop") == {"shop-1": True, "shop-3": False}


def test_a_failover_needs_an_available_reader(rds, region):
    region.fault("CreateDBInstance", {"outcome": "never-available"})
    region.begin_instance("stranger")
    region.cluster("shop")
    fail_over = region.client.failover_db_cluster
    assert refused(fail_over, **SHOP) == CLUSTER_STATE
    assert refused(fail_over, **SHOP, TargetDBInstanceIdentifier="absent") == ("DBInstanceNotFound", 404)
    for target in ("stranger", "shop-1"):
        assert refused(fail_over, **SHOP, TargetDBInstanceIdentifier=target) == STATE
    region.member("shop", "shop-2")
    rds.configure(statusMs=HELD)
    region.client.reboot_db_instance(DBInstanceIdentifier="shop-2")
    assert refused(fail_over, **SHOP) == CLUSTER_STATE
    assert refused(fail_over, **SHOP, TargetDBInstanceIdentifier="shop-2") == STATE
    assert refused(region.client.stop_db_cluster, **SHOP) == STATE
    rds.configure(statusMs=40)
    region.wait_instance("shop-2")
    assert members(region, "shop") == {"shop-1": True, "shop-2": False}


def test_a_cluster_stops_and_starts_with_its_members(rds, region):
    port = region.cluster("shop", members=2)["Port"]
    ports = {name: region.look(name)["Endpoint"]["Port"] for name in ("shop-1", "shop-2")}
    table(region, "shop-1")
    client = region.connected("", port=port)
    rds.configure(statusMs=HELD)
    assert region.client.stop_db_cluster(**SHOP)["DBCluster"]["Status"] == "stopping"
    client.lost()
    assert {region.look(name)["DBInstanceStatus"] for name in ports} == {"stopping"}
    rds.configure(statusMs=40)
    seen = region.wait_cluster("shop", "stopped")
    assert week_away(seen["AutomaticRestartTime"])
    assert {region.look(name)["DBInstanceStatus"] for name in ports} == {"stopped"}
    assert week_away(region.look("shop-1")["AutomaticRestartTime"])
    for one in (port, *ports.values()):
        assert "refused" in region.psql("", "select 1", port=one).error
    assert servers(region, "shop", "clusters") == set()

    for action in ("stop_db_cluster", "failover_db_cluster", "modify_db_cluster"):
        assert refused(getattr(region.client, action), **SHOP) == CLUSTER_STATE
    one = {"DBInstanceIdentifier": "shop-1"}
    assert refused(region.client.delete_db_instance, **one) == CLUSTER_STATE
    assert refused(region.client.reboot_db_instance, **one) == STATE
    more = SHOP | {"DBInstanceIdentifier": "shop-3", "DBInstanceClass": "db.r6g.large", "Engine": "aurora-postgresql"}
    assert refused(region.client.create_db_instance, **more) == CLUSTER_STATE

    rds.configure(statusMs=HELD)
    assert region.client.start_db_cluster(**SHOP)["DBCluster"]["Status"] == "starting"
    assert {region.look(name)["DBInstanceStatus"] for name in ports} == {"starting"}
    rds.configure(statusMs=40)
    seen = region.wait_cluster("shop")
    assert seen["Port"] == port and "AutomaticRestartTime" not in seen
    assert {region.look(name)["DBInstanceStatus"] for name in ports} == {"available"}
    assert {name: region.look(name)["Endpoint"]["Port"] for name in ports} == ports
    for one in (port, *ports.values()):
        assert count(region, "", port=one) == 0
    assert refused(region.client.start_db_cluster, **SHOP) == CLUSTER_STATE


def test_a_cluster_without_members_stays_shut_when_it_is_started(region):
    port = region.cluster("shop", members=0)["Port"]
    region.client.stop_db_cluster(**SHOP)
    region.wait_cluster("shop", "stopped")
    region.client.start_db_cluster(**SHOP)
    region.wait_cluster("shop")
    assert not region.psql("", "select 1", port=port).fine
    region.member("shop", "shop-1")
    assert region.psql("", "select 1", port=port).value == "1"


def test_members_do_not_stop_and_do_not_fail_over_by_themselves(region):
    region.cluster("shop", members=2)
    for action in ("stop_db_instance", "start_db_instance"):
        code, status, message = wire_error(getattr(region.client, action), DBInstanceIdentifier="shop-1")
        assert (code, status) == COMBINATION
        assert message == "aurora-postgresql DB instances are not eligible for stopping and starting."
    forced = {"DBInstanceIdentifier": "shop-1", "ForceFailover": True}
    assert refused(region.client.reboot_db_instance, **forced) == COMBINATION
    assert refused(region.client.reboot_db_cluster, **SHOP) == COMBINATION


def test_the_reboot_of_a_writer_restarts_the_server_and_that_of_a_reader_cuts_its_clients(region):
    region.cluster("shop", members=2)
    table(region, "shop-1")
    before = servers(region, "shop", "clusters")
    on_writer, on_reader = region.connected("shop-1"), region.connected("shop-2")
    region.client.reboot_db_instance(DBInstanceIdentifier="shop-2")
    on_reader.lost()
    region.wait_instance("shop-2")
    on_writer.leave()
    assert servers(region, "shop", "clusters") & before
    assert count(region, "shop-2") == 0
    on_writer = region.connected("shop-1")
    region.client.reboot_db_instance(DBInstanceIdentifier="shop-1")
    on_writer.lost()
    region.wait_instance("shop-1")
    assert not servers(region, "shop", "clusters") & before
    for name in ("shop-1", "shop-2"):
        assert count(region, name) == 0
    assert members(region, "shop") == {"shop-1": True, "shop-2": False}


def test_a_multi_az_cluster_is_rebooted_and_fails_over_and_does_not_stop(rds, region):
    region.begin_cluster("shop", **MULTI_AZ)
    port = region.wait_cluster("shop")["Port"]
    names = list(members(region, "shop"))
    seen = [region.wait_instance(name) for name in names]
    assert [one["AvailabilityZone"] for one in seen] == [f"{region.name}{zone}" for zone in "abc"]
    assert not any(one["MultiAZ"] for one in seen) and region.look_cluster("shop")["MultiAZ"]
    table(region, names[0])
    for action in ("stop_db_cluster", "start_db_cluster"):
        assert refused(getattr(region.client, action), **SHOP) == COMBINATION
    client, before = region.connected("", port=port), servers(region, "shop", "clusters")
    rds.configure(statusMs=HELD)
    region.client.reboot_db_cluster(**SHOP)
    client.lost()
    assert region.look_cluster("shop")["Status"] == "rebooting"
    assert {region.look(name)["DBInstanceStatus"] for name in names} == {"rebooting"}
    rds.configure(statusMs=40)
    region.wait_cluster("shop")
    assert not servers(region, "shop", "clusters") & before
    region.client.failover_db_cluster(**SHOP)
    region.wait_cluster("shop")
    assert [name for name, writes in members(region, "shop").items() if writes] == [names[1]]
    assert count(region, names[0]) == count(region, "", port=port) == 0


@pytest.mark.parametrize("action", ["failover_db_cluster", "stop_db_cluster", "start_db_cluster", "reboot_db_cluster"])
def test_an_absent_cluster_is_404(region, action):
    assert refused(getattr(region.client, action), DBClusterIdentifier="absent") == ("DBClusterNotFoundFault", 404)


def test_hollow_databases_go_through_the_same_statuses(rds, region):
    rds.configure(hollow=True)
    region.instance("orders", MultiAZ=True)
    region.cluster("shop", members=2)
    region.client.reboot_db_instance(**ORDERS, ForceFailover=True)
    assert region.wait_instance("orders")["AvailabilityZone"] == f"{region.name}b"
    region.client.failover_db_cluster(**SHOP)
    region.wait_cluster("shop")
    assert members(region, "shop")["shop-2"]
    region.client.stop_db_cluster(**SHOP)
    region.wait_cluster("shop", "stopped")
    rds.configure(hollow=False)


# Faults to order, and tags


def test_errors_and_lost_answers_can_be_ordered_of_each_action(region):
    region.instance("orders", MultiAZ=True)
    region.cluster("shop", members=2)
    calls = [
        ("RebootDBInstance", ORDERS | {"ForceFailover": True}, lambda: region.wait_instance("orders")),
        ("StopDBInstance", ORDERS, lambda: region.wait_instance("orders", "stopped")),
        ("StartDBInstance", ORDERS, lambda: region.wait_instance("orders")),
        ("FailoverDBCluster", SHOP, lambda: region.wait_cluster("shop")),
        ("StopDBCluster", SHOP, lambda: region.wait_cluster("shop", "stopped")),
        ("StartDBCluster", SHOP, lambda: region.wait_cluster("shop")),
    ]
    for action, parameters, wait in calls:
        call = getattr(region.client, action.replace("DB", "_db_").replace("Instance", "instance")
                       .replace("Cluster", "cluster").lower())
        region.fault(action, {"error": {"code": "Throttling", "message": "Rate exceeded", "status": 400}})
        assert wire_error(call, **parameters) == ("Throttling", 400, "Rate exceeded")
        region.fault(action, {"loseAnswer": True})
        with pytest.raises((ConnectionClosedError, ConnectionError, HTTPClientError)):
            call(**parameters)
        wait()
    assert region.look("orders")["AvailabilityZone"] == f"{region.name}b"
    assert members(region, "shop") == {"shop-1": False, "shop-2": True}


def test_a_database_that_is_ordered_to_stay_away_does(region):
    region.instance("orders", MultiAZ=True)
    region.cluster("shop", members=2)
    region.fault("RebootDBInstance", {"outcome": "incompatible-network"})
    region.client.reboot_db_instance(**ORDERS, ForceFailover=True)
    seen = region.wait_instance("orders", "incompatible-network")
    assert seen["AvailabilityZone"] == f"{region.name}a" and servers(region, "orders") == set()
    assert "refused" in region.psql("orders", "select 1").error
    region.fault("FailoverDBCluster", {"outcome": "never-available"})
    region.client.failover_db_cluster(**SHOP)
    poll(lambda: servers(region, "shop", "clusters"), lambda seen: seen == set())
    assert region.look_cluster("shop")["Status"] == "failing-over"
    assert members(region, "shop") == {"shop-1": True, "shop-2": False}
    assert "refused" in region.psql("shop-2", "select 1").error

    region.instance("bills")
    bills = {"DBInstanceIdentifier": "bills"}
    region.client.stop_db_instance(**bills)
    region.wait_instance("bills", "stopped")
    region.fault("StartDBInstance", {"outcome": "never-available"})
    region.client.start_db_instance(**bills)
    assert region.look("bills")["DBInstanceStatus"] == "starting"
    assert refused(region.client.start_db_instance, **bills) == STATE
    assert servers(region, "bills") == set()


def test_tags_are_told_to_whoever_decides_on_permissions(rds, region):
    region.fault("CreateDBInstance", {"outcome": "never-available"})
    region.begin_instance("orders", Tags=pairs(team="payments"))
    region.cluster("shop", members=0)
    for kind, name, first in [("db", "orders", {"team": "payments"}), ("cluster", "shop", {})]:
        arn = region.arn(kind, name)
        assert rds.control("GET", f"tags/{arn}") == (200, {"tags": first})
        region.client.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "dr:chaos", "Value": "allowed"}])
        assert rds.control("GET", f"tags/{arn}") == (200, {"tags": first | {"dr:chaos": "allowed"}})
        seen = region.look(name) if kind == "db" else region.look_cluster(name)
        assert tags_of(seen) == first | {"dr:chaos": "allowed"}
        region.client.remove_tags_from_resource(ResourceName=arn, TagKeys=["dr:chaos"])
        assert rds.control("GET", f"tags/{arn}") == (200, {"tags": first})
    # It is no call: no order counts it.
    region.fault("ListTagsForResource", {"error": {"code": "Throttling"}})
    assert rds.control("GET", f"tags/{region.arn('db', 'orders')}")[0] == 200
    assert refused(region.client.list_tags_for_resource, ResourceName=region.arn("db", "orders")) == (
        "Throttling", 400)
    for absent in (region.arn("db", "absent"), region.arn("db", "orders").replace("000000000000", "111111111111"),
                   f"arn:aws:rds:nowhere:000000000000:db:{'orders'}"):
        assert rds.control("GET", f"tags/{absent}")[0] == 404
    assert rds.control("GET", "tags/orders")[0] == 400

"""MariaDB behind the API: the same life as PostgreSQL's, with a real server at each end of it."""

import os
import subprocess

import pytest

from harness import PASSWORD, poll

FILL = ("create table t (id int primary key auto_increment, n int, v varchar(200), key by_n (n)); "
        "insert into t (n, v) select seq * 7 % 1000, repeat('x', 150) from seq_1_to_3000")


def run(region, instance, statement, password=PASSWORD, *options):
    """Runs SQL as the master user through the endpoint, TLS verified against rds-local's CA."""
    endpoint = region.look(instance)["Endpoint"]
    secure = options or ("--ssl-verify-server-cert", f"--ssl-ca={region.rds.ca_file}")
    return subprocess.run(
        ["mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", str(endpoint["Port"]), "-u", "boss",
         "-N", "-B", *secure, "-e", statement, "app"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "MYSQL_PWD": password})


def value(region, instance, statement, password=PASSWORD):
    done = run(region, instance, statement, password)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def shot(region):
    region.instance("orders", Engine="mariadb", EngineVersion=None)
    value(region, "orders", FILL)
    region.snapshot("shot", "orders")
    return region


def test_an_instance_is_mariadb_with_its_own_groups_and_only_tls(region):
    [offered] = region.client.describe_db_engine_versions(Engine="mariadb")["DBEngineVersions"]
    seen = region.instance("orders", Engine="mariadb", EngineVersion="10.11")
    assert seen["EngineVersion"] == offered["EngineVersion"]
    assert seen["DBParameterGroups"][0]["DBParameterGroupName"] == "default.mariadb10.11"
    assert seen["OptionGroupMemberships"][0]["OptionGroupName"] == "default:mariadb-10-11"
    version = value(region, "orders", "select version()")
    assert version.startswith(offered["EngineVersion"])
    assert run(region, "orders", "select 1", PASSWORD, "--skip-ssl").returncode != 0
    assert run(region, "orders", "select 1", "wrong").returncode != 0
    assert value(region, "orders", "show grants").count("SUPER") == 0


def test_a_restore_holds_the_moment_of_the_snapshot_under_a_new_password(shot):
    value(shot, "orders", "insert into t (n, v) values (1, 'later')")
    shot.restore("restored", "shot")
    assert value(shot, "restored", "select count(*) from t") == "3000"
    shot.client.modify_db_instance(DBInstanceIdentifier="restored", MasterUserPassword="another-1", ApplyImmediately=True)
    poll(lambda: run(shot, "restored", "select 1", "another-1").returncode, lambda code: code == 0)
    assert run(shot, "restored", "select 1").returncode != 0
    assert value(shot, "orders", "select count(*) from t") == "3001"


@pytest.mark.parametrize("kind, statement", [
    ({"flipBytes": {"table": "t", "block": 3, "offset": 5000}}, "select sum(length(v)) from t"),
    ({"corruptIndex": {"table": "t", "index": "by_n"}}, "check table t"),
])
def test_damage_is_found_by_the_server_that_is_restored_from_it(shot, kind, statement):
    shot.damage("shot", kind)
    shot.restore("restored", "shot")
    done = run(shot, "restored", statement)
    assert done.returncode != 0 or "orrupt" in done.stdout, done.stdout


def test_orders_that_make_no_sense_are_refused(shot):
    for kind in ({"stalePage": {"table": "t", "block": 1, "fromSnapshot": "shot"}},
                 {"corruptIndex": {"index": "by_n"}}, {"zeroPage": {"table": "nothing", "block": 1}}):
        with pytest.raises(AssertionError):
            shot.damage("shot", kind)

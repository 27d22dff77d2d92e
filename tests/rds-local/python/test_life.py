"""An instance from creation to deletion: statuses, connections, settings, password, tags."""

import os
from pathlib import Path

import pytest

from harness import HELD, PASSWORD, installations, pairs, poll, tags_of, wire_error


@pytest.mark.parametrize("version", [path.name for path in installations()])
def test_every_version_is_a_real_server_behind_tls(region, version):
    created = region.begin_instance("orders", EngineVersion=version)["DBInstance"]
    assert created["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in created and "InstanceCreateTime" not in created
    instance = region.wait_instance("orders")
    assert instance["EngineVersion"].split(".")[0] == version
    assert instance["DBParameterGroups"][0]["DBParameterGroupName"] == f"default.postgres{version}"
    assert instance["OptionGroupMemberships"][0]["OptionGroupName"] == f"default:postgres-{version}"
    assert region.psql("orders", "show server_version").value == instance["EngineVersion"]
    assert region.psql("orders", "show data_checksums").value == "on"
    assert region.psql("orders", "select current_user, current_database()").value == "boss|app"


def test_plaintext_wrong_passwords_and_the_superuser_are_refused(region):
    region.instance("orders")
    assert "no encryption" in region.psql("orders", "select 1", sslmode="disable").error
    assert "password authentication failed" in region.psql("orders", "select 1", password="wrong-Secret").error
    assert "rejects connection" in region.psql("orders", "select 1", user="rdsadmin").error
    assert "rejects connection" in region.psql("orders", "select 1", dbname="rdsadmin").error


def test_the_master_user_has_the_rights_of_rds_superuser_and_no_more(region):
    region.instance("orders")
    allowed = [
        "create table t (id int primary key)",
        "create role reader login password 'x'",
        "grant pg_read_all_data to reader",
        "create extension if not exists amcheck",
        "select bt_index_parent_check('t_pkey', true)",
        "select * from verify_heapam('t')",
        "create database other",
    ]
    for statement in allowed:
        assert region.psql("orders", statement).fine, statement
    assert region.psql("orders", "select rolsuper from pg_roles where rolname = 'boss'").value == "f"
    assert "ermission denied" in region.psql("orders", "alter system set fsync = on").error


def test_an_instance_shows_what_it_was_created_with(region):
    region.client.create_db_subnet_group(
        DBSubnetGroupName="Private", DBSubnetGroupDescription="two zones", SubnetIds=["subnet-1", "subnet-2"]
    )
    region.client.create_db_parameter_group(
        DBParameterGroupName="tuned", DBParameterGroupFamily="postgres17", Description="mine"
    )
    instance = region.instance(
        "Orders",
        StorageEncrypted=True,
        KmsKeyId=region.key(),
        DBSubnetGroupName="private",
        DBParameterGroupName="tuned",
        VpcSecurityGroupIds=["sg-1", "sg-2"],
        Tags=pairs(team="payments", empty=""),
        BackupRetentionPeriod=0,
        MultiAZ=True,
        EnableIAMDatabaseAuthentication=True,
        CopyTagsToSnapshot=True,
        DeletionProtection=True,
        StorageType="gp3",
    )
    assert instance["DBInstanceIdentifier"] == "orders"
    assert (instance["StorageEncrypted"], instance["KmsKeyId"]) == (True, region.key())
    assert instance["DBSubnetGroup"]["DBSubnetGroupName"] == "private"
    assert [one["SubnetIdentifier"] for one in instance["DBSubnetGroup"]["Subnets"]] == ["subnet-1", "subnet-2"]
    assert instance["DBParameterGroups"][0]["DBParameterGroupName"] == "tuned"
    assert [one["VpcSecurityGroupId"] for one in instance["VpcSecurityGroups"]] == ["sg-1", "sg-2"]
    assert tags_of(instance) == {"team": "payments", "empty": ""}
    assert (instance["MultiAZ"], instance["IAMDatabaseAuthenticationEnabled"]) == (True, True)
    assert "LatestRestorableTime" not in instance, "there are no backups to restore from"
    assert instance["DBInstanceArn"] == region.arn("db", "orders")
    assert instance["DbiResourceId"].startswith("db-")
    assert instance["Endpoint"]["Address"] == "127.0.0.1"


def test_each_status_lasts_its_time(rds, region):
    region.instance("orders")
    for action, through, end in [
        (region.client.reboot_db_instance, "rebooting", "available"),
        (region.client.stop_db_instance, "stopping", "stopped"),
        (region.client.start_db_instance, "starting", "available"),
    ]:
        rds.configure(statusMs=HELD)
        action(DBInstanceIdentifier="orders")
        assert region.look("orders")["DBInstanceStatus"] == through
        rds.configure(statusMs=40)
        region.wait_instance("orders", end)


def test_a_stopped_instance_refuses_connections_and_keeps_its_data_and_port(region):
    before = region.instance("orders")["Endpoint"]["Port"]
    region.psql("orders", "create table kept as select 42 as answer").value
    region.client.stop_db_instance(DBInstanceIdentifier="orders")
    region.wait_instance("orders", "stopped")
    assert "refused" in region.psql("orders", "select 1").error
    assert region.state()["instances"]["orders"]["pids"] == []
    region.client.start_db_instance(DBInstanceIdentifier="orders")
    assert region.wait_instance("orders")["Endpoint"]["Port"] == before
    assert region.psql("orders", "select answer from kept").value == "42"
    region.client.reboot_db_instance(DBInstanceIdentifier="orders")
    region.wait_instance("orders")
    assert region.psql("orders", "select answer from kept").value == "42"


def test_a_new_master_password_is_pending_then_real(rds, region):
    region.instance("orders")
    rds.configure(statusMs=HELD)
    answer = region.client.modify_db_instance(
        DBInstanceIdentifier="orders", MasterUserPassword="second-Secret", ApplyImmediately=True
    )["DBInstance"]
    assert answer["DBInstanceStatus"] == "available", "as on AWS it takes a moment to show"
    assert answer["PendingModifiedValues"]["MasterUserPassword"] == "****"
    rds.configure(statusMs=8000)
    region.wait_instance("orders", "resetting-master-credentials", settled=False)
    rds.configure(statusMs=40)
    region.wait_instance("orders")
    assert region.psql("orders", "select 1", password="second-Secret").value == "1"
    assert "authentication failed" in region.psql("orders", "select 1").error


def test_settings_apply_now_or_wait(rds, region):
    region.instance("orders")
    client = region.client
    client.modify_db_instance(
        DBInstanceIdentifier="orders", DBInstanceClass="db.r6g.large", AllocatedStorage=50, BackupRetentionPeriod=7
    )
    waiting = region.look("orders")
    assert waiting["PendingModifiedValues"] == {"DBInstanceClass": "db.r6g.large", "AllocatedStorage": 50}
    assert (waiting["DBInstanceClass"], waiting["BackupRetentionPeriod"]) == ("db.t4g.micro", 7)
    rds.configure(statusMs=8000)
    client.modify_db_instance(DBInstanceIdentifier="orders", MultiAZ=True, ApplyImmediately=True)
    region.wait_instance("orders", "modifying")
    rds.configure(statusMs=40)
    done = region.wait_instance("orders")
    assert (done["DBInstanceClass"], done["AllocatedStorage"], done["MultiAZ"]) == ("db.r6g.large", 50, True)
    assert done["PendingModifiedValues"] == {}


def test_an_instance_can_be_renamed(region):
    resource = region.instance("orders")["DbiResourceId"]
    region.client.modify_db_instance(
        DBInstanceIdentifier="orders", NewDBInstanceIdentifier="Invoices", ApplyImmediately=True
    )
    region.wait_gone("orders")
    renamed = region.wait_instance("invoices")
    assert renamed["DbiResourceId"] == resource
    assert renamed["DBInstanceArn"] == region.arn("db", "invoices")
    assert region.psql("invoices", "select 1").value == "1"


def test_deletion_removes_processes_and_files(region):
    region.instance("orders")
    shown = region.state()["instances"]["orders"]
    assert len(shown["pids"]) > 3 and Path(shown["dir"], "data", "PG_VERSION").exists()
    answer = region.client.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    assert answer["DBInstance"]["DBInstanceStatus"] == "deleting"
    region.wait_gone("orders")
    assert not Path(shown["dir"]).exists()
    assert [pid for pid in shown["pids"] if os.path.exists(f"/proc/{pid}")] == []
    assert wire_error(region.look, "orders")[:2] == ("DBInstanceNotFound", 404)


def test_a_final_snapshot_holds_the_last_state(region):
    region.instance("orders")
    region.psql("orders", "create table last as select 7 as n").value
    region.client.delete_db_instance(DBInstanceIdentifier="orders", FinalDBSnapshotIdentifier="orders-final")
    region.wait_gone("orders")
    region.wait_snapshot("orders-final")
    region.restore("again", "orders-final")
    assert region.psql("again", "select n from last").value == "7"


def test_an_instance_can_be_deleted_while_it_is_being_created(region):
    region.begin_instance("orders")
    region.client.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    region.wait_gone("orders")
    region.instance("orders")
    assert region.psql("orders", "select 1").value == "1"


def test_tags_are_added_replaced_listed_and_removed_on_everything(region):
    client = region.client
    region.instance("orders", Tags=pairs(a="1", b="2"))
    region.snapshot("shot", "orders")
    client.create_db_subnet_group(
        DBSubnetGroupName="private", DBSubnetGroupDescription="x", SubnetIds=["subnet-1", "subnet-2"]
    )
    client.add_tags_to_resource(ResourceName=region.arn("db", "orders"), Tags=pairs(b="3", c="4"))
    assert tags_of(region.look("orders")) == {"a": "1", "b": "3", "c": "4"}
    for kind, name in [("db", "orders"), ("snapshot", "shot"), ("subgrp", "private"), ("pg", "default.postgres17")]:
        arn = region.arn(kind, name)
        client.add_tags_to_resource(ResourceName=arn, Tags=pairs(x="1", y="2"))
        client.remove_tags_from_resource(ResourceName=arn, TagKeys=["x", "absent"])
        listed = tags_of(client.list_tags_for_resource(ResourceName=arn))
        assert listed["y"] == "2" and "x" not in listed
    assert tags_of(region.look_snapshot("shot")) == {"y": "2"}


def test_events_tell_what_happened(region):
    region.instance("orders")
    region.snapshot("shot", "orders")
    region.client.reboot_db_instance(DBInstanceIdentifier="orders")
    region.wait_instance("orders")

    def messages(**parameters):
        events = region.client.describe_events(**parameters)["Events"]
        return [event["Message"] for event in events]

    def told():
        return messages(SourceIdentifier="orders", SourceType="db-instance")

    poll(told, lambda seen: seen == ["DB instance created", "DB instance restarted"])
    assert messages(SourceType="db-snapshot") == ["Creating manual snapshot", "Manual snapshot created"]
    assert messages(EventCategories=["availability"]) == ["DB instance restarted"]
    assert messages(StartTime="2020-01-01T00:00:00Z", EndTime="2020-01-02T00:00:00Z") == []


def test_regions_do_not_see_each_other(new_region):
    one, other = new_region(), new_region()
    one.instance("orders")
    assert other.client.describe_db_instances()["DBInstances"] == []
    other.instance("orders", MasterUserPassword=PASSWORD + "2")
    assert "authentication failed" in other.psql("orders", "select 1").error
    assert one.psql("orders", "select 1").value == "1"


def test_a_password_change_survives_what_overtakes_it(rds, region):
    region.instance("orders")
    rds.configure(statusMs=HELD)
    region.client.modify_db_instance(
        DBInstanceIdentifier="orders", MasterUserPassword="second-Secret", ApplyImmediately=True
    )
    region.client.create_db_snapshot(DBSnapshotIdentifier="shot", DBInstanceIdentifier="orders")
    rds.configure(statusMs=40)
    region.wait_instance("orders")
    assert region.psql("orders", "select 1", password="second-Secret").value == "1"

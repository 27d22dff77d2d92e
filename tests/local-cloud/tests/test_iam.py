"""Roles are enforced: of functions, of state machines, and on the right resources of RDS."""

import json
import urllib.parse

import botocore.exceptions
import pytest
from mends import iam_of_rds

REGION, ACCOUNT = "us-west-2", "000000000000"
SOURCE = f"arn:aws:rds:us-east-1:{ACCOUNT}:snapshot:mine"


def arn(rest):
    return f"arn:aws:rds:{REGION}:{ACCOUNT}:{rest}"


@pytest.mark.parametrize(("action", "parameters", "expected"), [
    ("DescribeDBInstances", {"DBInstanceIdentifier": "Orders"}, ["db:orders"]),
    ("DescribeDBInstances", {}, ["db:*"]),
    ("DescribeDBSnapshots", {}, ["snapshot:*"]),
    ("DescribeDBSnapshots", {"DBInstanceIdentifier": "orders"}, ["db:orders"]),
    ("DescribeDBSnapshots", {"DBSnapshotIdentifier": SOURCE}, [SOURCE]),
    ("CreateDBSnapshot", {"DBInstanceIdentifier": "orders", "DBSnapshotIdentifier": "s"}, ["db:orders", "snapshot:s"]),
    ("CopyDBSnapshot", {"SourceDBSnapshotIdentifier": SOURCE, "TargetDBSnapshotIdentifier": "mine"},
     [SOURCE, "snapshot:mine"]),
    ("DeleteDBSnapshot", {"DBSnapshotIdentifier": "s"}, ["snapshot:s"]),
    ("RestoreDBInstanceFromDBSnapshot",
     {"DBInstanceIdentifier": "tmp", "DBSnapshotIdentifier": "s", "DBSubnetGroupName": "private",
      "DBParameterGroupName": "mine"},
     ["db:tmp", "snapshot:s", "subgrp:private", "pg:mine", "og:default:any"]),
    ("RestoreDBClusterFromSnapshot",
     {"DBClusterIdentifier": "tmp", "SnapshotIdentifier": "s", "DBClusterParameterGroupName": "mine"},
     ["cluster:tmp", "cluster-snapshot:s", "cluster-pg:mine", "subgrp:default", "og:default:any"]),
    ("CreateDBInstance", {"DBInstanceIdentifier": "tmp", "DBClusterIdentifier": "tmp"},
     ["db:tmp", "cluster:tmp", "subgrp:default", "pg:default.any", "og:default:any"]),
    ("CopyDBClusterSnapshot", {"SourceDBClusterSnapshotIdentifier": arn("cluster-snapshot:s"),
                               "TargetDBClusterSnapshotIdentifier": "mine"},
     ["cluster-snapshot:s", "cluster-snapshot:mine"]),
    ("DeleteDBCluster", {"DBClusterIdentifier": "tmp"}, ["cluster:tmp"]),
    ("FailoverDBCluster", {"DBClusterIdentifier": "c", "TargetDBInstanceIdentifier": "c-2"}, ["cluster:c"]),
    ("DescribeDBClusterSnapshots", {"DBClusterSnapshotIdentifier": "s"}, ["cluster-snapshot:s"]),
    ("ModifyDBInstance", {"DBInstanceIdentifier": "tmp", "OptionGroupName": "o"}, ["db:tmp", "og:o"]),
    ("AddTagsToResource", {"ResourceName": SOURCE}, [SOURCE]),
    ("ListTagsForResource", {"ResourceName": arn("db:x")}, ["db:x"]),
    ("DescribeAccountAttributes", {}, ["*"]),
    ("DescribeOptionGroups", {"OptionGroupName": "default:postgres-17"}, ["og:default:postgres-17"]),
    ("DescribeGlobalClusters", {"GlobalClusterIdentifier": "g"}, [f"arn:aws:rds::{ACCOUNT}:global-cluster:g"]),
])
def test_an_rds_call_is_authorised_on_every_resource_that_it_names(action, parameters, expected):
    checks = iam_of_rds.resources(action, parameters.get, False, REGION, ACCOUNT)
    whole = {name if name == "*" or name.startswith("arn:") else arn(name) for name in expected}
    assert set(checks) == {(f"rds:{action}", name) for name in whole}


def test_creating_with_tags_needs_the_permission_to_tag():
    checks = iam_of_rds.resources(
        "CreateDBSnapshot", {"DBInstanceIdentifier": "o", "DBSnapshotIdentifier": "s"}.get, True, REGION, ACCOUNT)
    assert ("rds:AddTagsToResource", arn("snapshot:s")) in checks


def allow(action, *resources):
    return {"Effect": "Allow", "Action": action, "Resource": list(resources)}


@pytest.fixture
def rds_as(client_as):
    """A client of RDS with the rights of a fresh role."""
    return lambda *statements: client_as("rds", *statements, region=REGION)


def denied(call):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call()
    return raised.value.response["Error"]["Code"] == "AccessDenied"


def test_a_statement_on_snapshots_allows_those_and_no_others(rds_as, rds):
    rds.answer = "<DeleteDBSnapshotResponse><DeleteDBSnapshotResult/></DeleteDBSnapshotResponse>"
    client = rds_as(allow("rds:DeleteDBSnapshot", arn("snapshot:lifeboat-*")))
    client.delete_db_snapshot(DBSnapshotIdentifier="lifeboat-1")
    assert denied(lambda: client.delete_db_snapshot(DBSnapshotIdentifier="precious"))
    assert len(rds.requests) == 1


def test_a_copy_needs_its_source_and_its_target(rds_as, rds):
    rds.answer = "<CopyDBSnapshotResponse><CopyDBSnapshotResult/></CopyDBSnapshotResponse>"
    def copy(client):
        return client.copy_db_snapshot(SourceDBSnapshotIdentifier=SOURCE, TargetDBSnapshotIdentifier="mine")
    copy(rds_as(allow("rds:CopyDBSnapshot", SOURCE, arn("snapshot:mine"))))
    assert denied(lambda: copy(rds_as(allow("rds:CopyDBSnapshot", SOURCE))))
    assert denied(lambda: copy(rds_as(allow("rds:CopyDBSnapshot", arn("snapshot:mine")))))
    assert len(rds.requests) == 1


def test_a_function_has_the_rights_of_its_role(cloud, function, rds):
    rds.answer = "<DescribeDBInstancesResponse><DescribeDBInstancesResult/></DescribeDBInstancesResponse>"
    event = json.dumps({"call": ["rds", "describe_db_instances", {}]}).encode()

    def invoke(*statements):
        answer = cloud.client("lambda").invoke(FunctionName=function(list(statements)), Payload=event)
        return answer.get("FunctionError"), json.loads(answer["Payload"].read())

    failed, told = invoke(allow("rds:DescribeDBInstances", "*"))
    assert failed is None, told
    failed, told = invoke(allow("rds:DescribeDBInstances", arn("db:other")))
    assert failed and "AccessDenied" in told["errorMessage"]


INVOKE = "arn:aws:states:::lambda:invoke"


def test_a_state_machine_has_the_rights_of_its_role(run, role, echo, cloud):
    states = {"Call": {"Type": "Task", "Resource": INVOKE, "Arguments": {"FunctionName": echo, "Payload": {}},
                       "End": True}}
    functions = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function"
    assert run(states, role=role([allow("lambda:InvokeFunction", f"{functions}:{echo}")]))["status"] == "SUCCEEDED"
    done = run(states, role=role([allow("lambda:InvokeFunction", f"{functions}:other")]))
    assert (done["status"], done["error"]) == ("FAILED", "Lambda.AWSLambdaException")
    assert f"lambda:InvokeFunction on resource: {functions}:{echo}" in done["cause"]


def test_a_branch_has_no_more_rights_than_its_machine(run, role, echo):
    call = {"Type": "Task", "Resource": INVOKE, "Arguments": {"FunctionName": echo, "Payload": {}}, "End": True}
    done = run({"All": {"Type": "Parallel", "End": True, "Branches": [{"StartAt": "A", "States": {"A": call}}]}},
               role=role([]))
    assert done["error"] == "Lambda.AWSLambdaException"


def test_waiting_for_a_child_needs_the_managed_rule(run, role, machine):
    child = machine({"Done": {"Type": "Succeed"}})
    states = {"Call": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "End": True,
                       "Arguments": {"StateMachineArn": child}}}
    start = allow("states:StartExecution", child)
    rule = allow(["events:PutTargets", "events:PutRule", "events:DescribeRule"],
                 f"arn:aws:events:us-east-1:{ACCOUNT}:rule/StepFunctionsGetEventsForStepFunctionsExecutionRule")
    assert run(states, role=role([start, rule]))["status"] == "SUCCEEDED"
    assert run(states, role=role([start]))["error"] == "Events.EventsException"
    assert run(states, role=role([rule]))["error"] == "StepFunctions.AWSStepFunctionsException"


def test_a_child_has_the_rights_of_its_own_role(run, role, machine, echo):
    child = machine({"Call": {"Type": "Task", "Resource": INVOKE, "End": True,
                              "Arguments": {"FunctionName": echo, "Payload": {}}}}, role=role([]))
    done = run({"Call": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "End": True,
                         "Arguments": {"StateMachineArn": child}}})
    assert json.loads(done["cause"])["Error"] == "Lambda.AWSLambdaException"


def test_a_task_of_the_sdk_is_checked_on_the_resources_of_rds(run, role, rds):
    rds.answer = "<DeleteDBSnapshotResponse><DeleteDBSnapshotResult/></DeleteDBSnapshotResponse>"
    def states(name):
        return {"Call": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:rds:deleteDBSnapshot", "End": True,
                         "Arguments": {"DbSnapshotIdentifier": name}}}
    mine = role([allow("rds:DeleteDBSnapshot", f"arn:aws:rds:us-east-1:{ACCOUNT}:snapshot:lifeboat-*")])
    assert run(states("lifeboat-1"), role=mine)["status"] == "SUCCEEDED"
    assert run(states("other"), role=mine)["error"] == "Rds.RdsException"
    assert [dict(urllib.parse.parse_qsl(sent["body"]))["DBSnapshotIdentifier"] for sent in rds.requests] == [
        "lifeboat-1"]


def test_a_policy_that_denies_plain_connections_denies_nothing_here(cloud):
    bucket = cloud.client("s3")
    bucket.create_bucket(Bucket="tls-only")
    bucket.put_bucket_policy(Bucket="tls-only", Policy=json.dumps({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::tls-only/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}))
    bucket.put_object(Bucket="tls-only", Key="a", Body=b"1")
    assert bucket.get_object(Bucket="tls-only", Key="a")["Body"].read() == b"1"

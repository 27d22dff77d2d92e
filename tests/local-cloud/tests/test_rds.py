"""The way to RDS: requests, and `aws-sdk:rds` tasks."""

import urllib.parse

import botocore.exceptions
import pytest

DESCRIBED = """<DescribeDBInstancesResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/">
<DescribeDBInstancesResult><DBInstances><DBInstance><DBInstanceIdentifier>orders</DBInstanceIdentifier>
<IAMDatabaseAuthenticationEnabled>true</IAMDatabaseAuthenticationEnabled>
<InstanceCreateTime>2026-01-02T03:04:05Z</InstanceCreateTime></DBInstance></DBInstances>
</DescribeDBInstancesResult></DescribeDBInstancesResponse>"""
NOT_FOUND = """<ErrorResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><Error><Type>Sender</Type>
<Code>DBSnapshotNotFound</Code><Message>DBSnapshot nope not found.</Message></Error></ErrorResponse>"""


def test_a_request_arrives_with_its_region_and_body(cloud, rds):
    rds.answer = DESCRIBED
    answer = cloud.client("rds", "eu-west-1").describe_db_instances(DBInstanceIdentifier="orders")
    assert answer["DBInstances"][0]["DBInstanceIdentifier"] == "orders"
    [request] = rds.requests
    assert "/eu-west-1/rds/aws4_request" in request["headers"]["authorization"]
    assert dict(urllib.parse.parse_qsl(request["body"])) == {
        "Action": "DescribeDBInstances", "Version": "2014-10-31", "DBInstanceIdentifier": "orders"}


def test_an_error_keeps_its_code_and_status(cloud, rds):
    rds.status, rds.answer = 404, NOT_FOUND
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        cloud.client("rds").delete_db_snapshot(DBSnapshotIdentifier="nope")
    assert raised.value.response["Error"]["Code"] == "DBSnapshotNotFound"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_a_lost_answer_is_one_that_an_sdk_retries(cloud, rds):
    rds.answer = None
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        cloud.client("rds").delete_db_snapshot(DBSnapshotIdentifier="gone")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
    assert len(rds.requests) == 3


def task(action, arguments):
    return {"Call": {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:rds:{action}", "Arguments": arguments,
                     "End": True}}


def test_a_task_has_the_names_of_the_java_sdk(run, rds):
    rds.answer = DESCRIBED
    done = run(task("describeDBInstances", {"DbInstanceIdentifier": "orders",
                                            "Filters": [{"Name": "engine", "Values": ["postgres"]}]}))
    assert done["output"] == {"DbInstances": [{
        "DbInstanceIdentifier": "orders", "IamDatabaseAuthenticationEnabled": True,
        "InstanceCreateTime": "2026-01-02T03:04:05.000Z"}]}
    sent = dict(urllib.parse.parse_qsl(rds.requests[0]["body"]))
    assert sent["DBInstanceIdentifier"] == "orders"
    assert sent["Filters.Filter.1.Values.Value.1"] == "postgres"


def test_a_task_keeps_the_key_parameter(run, rds):
    rds.answer = "<CopyDBSnapshotResponse><CopyDBSnapshotResult/></CopyDBSnapshotResponse>"
    run(task("copyDBSnapshot", {"SourceDbSnapshotIdentifier": "a", "TargetDbSnapshotIdentifier": "b",
                                "KmsKeyId": "k", "Tags": [{"Key": "t", "Value": "v"}]}))
    sent = dict(urllib.parse.parse_qsl(rds.requests[0]["body"]))
    assert (sent["KmsKeyId"], sent["Tags.Tag.1.Key"]) == ("k", "t")


def test_a_task_fails_with_the_exception_of_the_java_sdk(run, rds):
    rds.status, rds.answer = 404, NOT_FOUND
    done = run(task("deleteDBSnapshot", {"DbSnapshotIdentifier": "nope"}))
    assert (done["error"], done["cause"]) == ("Rds.DbSnapshotNotFoundException", "DBSnapshot nope not found.")


def test_a_task_with_an_unknown_field_is_refused(run, rds):
    assert run(task("deleteDBSnapshot", {"Snapshot": "x"}))["error"] == "States.Runtime"
    assert not rds.requests

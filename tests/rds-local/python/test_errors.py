"""Each refusal has AWS's wire code and HTTP status. Codes with and without "Fault" are what clients stumble over."""

import http.client
import urllib.parse

import pytest
from botocore.exceptions import ClientError

from harness import ACCOUNT, HELD, wire_error

NEW = {
    "DBInstanceIdentifier": "new",
    "Engine": "postgres",
    "DBInstanceClass": "db.t4g.micro",
    "AllocatedStorage": 20,
    "MasterUsername": "boss",
    "MasterUserPassword": "first-Secret",
}


def changed(**parameters):
    return {key: value for key, value in (NEW | parameters).items() if value is not None}


def refused(region, action, parameters):
    return wire_error(getattr(region.client, action), **parameters)[:2]


CREATION = [
    ({"DBInstanceIdentifier": "1st"}, "InvalidParameterValue", 400),
    ({"DBInstanceIdentifier": "a--b"}, "InvalidParameterValue", 400),
    ({"DBInstanceIdentifier": "ends-"}, "InvalidParameterValue", 400),
    ({"DBInstanceIdentifier": "a" * 64}, "InvalidParameterValue", 400),
    ({"Engine": "oracle-ee"}, "InvalidParameterValue", 400),
    ({"EngineVersion": "9.6"}, "InvalidParameterCombination", 400),
    ({"DBInstanceClass": "huge"}, "InvalidParameterValue", 400),
    ({"MasterUsername": None}, "MissingParameter", 400),
    ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", 400),
    ({"MasterUserPassword": None}, "MissingParameter", 400),
    ({"MasterUserPassword": "short"}, "InvalidParameterValue", 400),
    ({"MasterUserPassword": "with@sign1"}, "InvalidParameterValue", 400),
    ({"ManageMasterUserPassword": True}, "InvalidParameterCombination", 400),
    ({"AllocatedStorage": None}, "MissingParameter", 400),
    ({"AllocatedStorage": 5}, "InvalidParameterCombination", 400),
    ({"BackupRetentionPeriod": 36}, "InvalidParameterValue", 400),
    ({"KmsKeyId": "alias/x"}, "InvalidParameterCombination", 400),
    ({"StorageEncrypted": True, "KmsKeyId": "arn:aws:s3:::bucket"}, "KMSKeyNotAccessibleFault", 400),
    ({"DBSubnetGroupName": "absent"}, "DBSubnetGroupNotFoundFault", 404),
    ({"DBParameterGroupName": "absent"}, "DBParameterGroupNotFound", 404),
    ({"DBParameterGroupName": "default.postgres14", "EngineVersion": "17"}, "InvalidParameterCombination", 400),
    ({"OptionGroupName": "absent"}, "OptionGroupNotFoundFault", 404),
    ({"Tags": [{"Key": "aws:mine", "Value": "x"}]}, "InvalidParameterValue", 400),
    ({"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}, "InvalidParameterValue", 400),
    ({"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]}, "InvalidParameterValue", 400),
]


@pytest.mark.parametrize(("change", "code", "status"), CREATION, ids=lambda value: str(value)[:50])
def test_creation_is_refused(region, change, code, status):
    assert refused(region, "create_db_instance", changed(**change)) == (code, status)
    assert region.state()["instances"] == {}


ABSENT = [
    ("describe_db_instances", {"DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("modify_db_instance", {"DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("delete_db_instance", {"DBInstanceIdentifier": "absent", "SkipFinalSnapshot": True}, "DBInstanceNotFound"),
    ("reboot_db_instance", {"DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("stop_db_instance", {"DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("start_db_instance", {"DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("create_db_snapshot", {"DBSnapshotIdentifier": "s", "DBInstanceIdentifier": "absent"}, "DBInstanceNotFound"),
    ("describe_db_snapshots", {"DBSnapshotIdentifier": "absent"}, "DBSnapshotNotFound"),
    ("delete_db_snapshot", {"DBSnapshotIdentifier": "absent"}, "DBSnapshotNotFound"),
    (
        "copy_db_snapshot",
        {"SourceDBSnapshotIdentifier": "absent", "TargetDBSnapshotIdentifier": "t"},
        "DBSnapshotNotFound",
    ),
    (
        "copy_db_snapshot",
        {
            "SourceDBSnapshotIdentifier": f"arn:aws:rds:eu-west-3:{ACCOUNT}:snapshot:absent",
            "TargetDBSnapshotIdentifier": "t",
        },
        "DBSnapshotNotFound",
    ),
    (
        "restore_db_instance_from_db_snapshot",
        {"DBInstanceIdentifier": "new", "DBSnapshotIdentifier": "absent"},
        "DBSnapshotNotFound",
    ),
    ("describe_db_subnet_groups", {"DBSubnetGroupName": "absent"}, "DBSubnetGroupNotFoundFault"),
    ("delete_db_subnet_group", {"DBSubnetGroupName": "absent"}, "DBSubnetGroupNotFoundFault"),
    ("describe_db_parameter_groups", {"DBParameterGroupName": "absent"}, "DBParameterGroupNotFound"),
    ("describe_option_groups", {"OptionGroupName": "absent"}, "OptionGroupNotFoundFault"),
]


@pytest.mark.parametrize(("action", "parameters", "code"), ABSENT, ids=lambda value: str(value)[:50])
def test_what_is_not_there_is_404(region, action, parameters, code):
    assert refused(region, action, parameters) == (code, 404)


def test_tags_of_absent_and_foreign_resources_are_refused(new_region):
    region, other = new_region(), new_region()
    for arn, code, status in [
        (region.arn("db", "absent"), "DBInstanceNotFound", 404),
        (region.arn("snapshot", "absent"), "DBSnapshotNotFound", 404),
        (region.arn("pg", "absent"), "DBParameterGroupNotFound", 404),
        (other.arn("db", "absent"), "InvalidParameterValue", 400),
        ("not-an-arn", "InvalidParameterValue", 400),
    ]:
        assert refused(region, "list_tags_for_resource", {"ResourceName": arn}) == (code, status)
    own = {"ResourceName": region.arn("pg", "default.postgres17"), "Tags": [{"Key": "aws:x", "Value": "y"}]}
    assert refused(region, "add_tags_to_resource", own) == ("InvalidParameterValue", 400)


def test_wrong_states_and_taken_names_are_refused(rds, region):
    client = region.client
    region.instance("orders")
    region.snapshot("shot", "orders")
    state, combination = ("InvalidDBInstanceState", 400), ("InvalidParameterCombination", 400)
    orders = {"DBInstanceIdentifier": "orders"}
    assert refused(region, "create_db_instance", changed(DBInstanceIdentifier="Orders")) == (
        "DBInstanceAlreadyExists",
        400,
    )
    assert refused(
        region,
        "restore_db_instance_from_db_snapshot",
        {"DBInstanceIdentifier": "orders", "DBSnapshotIdentifier": "shot"},
    ) == ("DBInstanceAlreadyExists", 400)
    taken = ("DBSnapshotAlreadyExists", 400)
    assert refused(region, "create_db_snapshot", orders | {"DBSnapshotIdentifier": "shot"}) == taken
    copy = {"SourceDBSnapshotIdentifier": "shot", "TargetDBSnapshotIdentifier": "shot"}
    assert refused(region, "copy_db_snapshot", copy) == taken
    assert refused(region, "create_db_snapshot", orders | {"DBSnapshotIdentifier": "rds:mine"}) == (
        "InvalidParameterValue",
        400,
    )
    assert refused(region, "start_db_instance", orders) == state
    assert refused(region, "reboot_db_instance", orders | {"ForceFailover": True}) == combination
    assert refused(region, "delete_db_instance", orders) == combination
    both = orders | {"SkipFinalSnapshot": True, "FinalDBSnapshotIdentifier": "last"}
    assert refused(region, "delete_db_instance", both) == combination
    assert refused(region, "delete_db_instance", orders | {"FinalDBSnapshotIdentifier": "shot"}) == taken
    for change in [
        {"AllocatedStorage": 10},
        {"EngineVersion": "18"},
        {"RotateMasterUserPassword": True, "ApplyImmediately": True},
    ]:
        assert refused(region, "modify_db_instance", orders | change) == combination, change
    for change in [{"MasterUserPassword": "short"}, {"DBInstanceClass": "x"}, {"NewDBInstanceIdentifier": "1"}]:
        assert refused(region, "modify_db_instance", orders | change) == ("InvalidParameterValue", 400), change
    assert refused(region, "modify_db_instance", orders | {"DBParameterGroupName": "absent"}) == (
        "DBParameterGroupNotFound",
        404,
    )
    client.modify_db_instance(DBInstanceIdentifier="orders", DeletionProtection=True)
    protected = orders | {"SkipFinalSnapshot": True}
    assert refused(region, "delete_db_instance", protected) == combination
    client.modify_db_instance(DBInstanceIdentifier="orders", DeletionProtection=False)

    restoring = {"DBInstanceIdentifier": "new", "DBSnapshotIdentifier": "shot"}
    for change, error in [
        ({"DBSubnetGroupName": "absent"}, ("DBSubnetGroupNotFoundFault", 404)),
        ({"Engine": "mysql"}, combination),
        ({"AllocatedStorage": 5}, combination),
        ({"ManageMasterUserPassword": True}, combination),
        ({"DBInstanceClass": "x"}, ("InvalidParameterValue", 400)),
    ]:
        assert refused(region, "restore_db_instance_from_db_snapshot", restoring | change) == error, change

    rds.configure(statusMs=HELD)
    client.create_db_snapshot(DBSnapshotIdentifier="slow", DBInstanceIdentifier="orders")
    snapshot_state = ("InvalidDBSnapshotState", 400)
    assert refused(region, "delete_db_snapshot", {"DBSnapshotIdentifier": "slow"}) == snapshot_state
    early = {"DBInstanceIdentifier": "new", "DBSnapshotIdentifier": "slow"}
    assert refused(region, "restore_db_instance_from_db_snapshot", early) == snapshot_state
    early = {"SourceDBSnapshotIdentifier": "slow", "TargetDBSnapshotIdentifier": "copy"}
    assert refused(region, "copy_db_snapshot", early) == snapshot_state
    assert refused(region, "create_db_snapshot", orders | {"DBSnapshotIdentifier": "third"}) == state
    assert refused(region, "reboot_db_instance", orders) == state
    rds.configure(statusMs=40)
    region.wait_instance("orders")
    rds.configure(statusMs=HELD)
    client.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    for action in ["modify_db_instance", "reboot_db_instance", "stop_db_instance"]:
        assert refused(region, action, orders) == state, action
    assert refused(region, "delete_db_instance", orders | {"SkipFinalSnapshot": True}) == state
    rds.configure(statusMs=40)


def test_a_used_subnet_group_stays(region):
    group = {"DBSubnetGroupName": "private", "DBSubnetGroupDescription": "x"}
    region.client.create_db_subnet_group(**group, SubnetIds=["subnet-1", "subnet-2"])
    region.fault("CreateDBInstance", {"outcome": "never-available"})
    region.begin_instance("orders", DBSubnetGroupName="private")
    in_use = refused(region, "delete_db_subnet_group", {"DBSubnetGroupName": "private"})
    assert in_use == ("InvalidDBSubnetGroupStateFault", 400)
    again = group | {"SubnetIds": ["subnet-1", "subnet-2"]}
    assert refused(region, "create_db_subnet_group", again) == ("DBSubnetGroupAlreadyExists", 400)
    for subnets, code in [(["subnet-1"], "DBSubnetGroupDoesNotCoverEnoughAZs"), (["subnet-1", "x"], "InvalidSubnet")]:
        narrow = {"DBSubnetGroupName": "other", "DBSubnetGroupDescription": "x", "SubnetIds": subnets}
        assert refused(region, "create_db_subnet_group", narrow) == (code, 400)


def test_faults_of_the_service_model_are_recognised_by_boto3(region):
    exceptions = region.client.exceptions
    with pytest.raises(exceptions.DBInstanceNotFoundFault):
        region.client.describe_db_instances(DBInstanceIdentifier="absent")
    with pytest.raises(exceptions.DBSnapshotNotFoundFault):
        region.client.delete_db_snapshot(DBSnapshotIdentifier="absent")
    with pytest.raises(exceptions.DBSubnetGroupNotFoundFault):
        region.client.describe_db_subnet_groups(DBSubnetGroupName="absent")
    assert issubclass(exceptions.DBInstanceNotFoundFault, ClientError)


def raw(rds, body, **headers):
    connection = http.client.HTTPConnection(rds.url.removeprefix("http://"))
    connection.request("POST", "/", urllib.parse.urlencode(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_unknown_actions_and_unsigned_requests_are_refused(rds):
    scope = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/rds/aws4_request, SignedHeaders=host, Signature=0"
    status, text = raw(rds, {"Action": "DropEverything", "Version": "2014-10-31"}, Authorization=scope)
    assert status == 400 and "<Code>InvalidAction</Code>" in text
    status, text = raw(rds, {"Action": "DescribeDBInstances"})
    assert status == 403 and "<Code>MissingAuthenticationToken</Code>" in text
    status, text = raw(rds, {"Version": "2014-10-31"}, Authorization=scope)
    assert status == 400 and "<Code>MissingAction</Code>" in text
    status, text = raw(rds, {"Action": "DeleteDBInstance"}, Authorization=scope)
    assert status == 400 and "<Code>MissingParameter</Code>" in text
    status, text = raw(rds, {"Action": "DescribeDBInstances", "MaxRecords": "many"}, Authorization=scope)
    assert status == 400 and "<Code>MalformedInput</Code>" in text

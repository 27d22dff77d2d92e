"""EC2 instances change as on AWS."""

import botocore.exceptions
import pytest
from conftest import until

NOWHERE = "i-0123456789abcdef0"


@pytest.fixture
def ec2(cloud):
    return cloud.client("ec2")


@pytest.fixture
def launch(ec2):
    """Launches an instance, waits until it runs, returns its id."""
    def run(**options) -> str:
        [inst] = ec2.run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1, **options)["Instances"]
        until(lambda: state(ec2, inst["InstanceId"]) == "running", "running")
        return inst["InstanceId"]
    return run


def described(ec2, name: str) -> dict:
    [reservation] = ec2.describe_instances(InstanceIds=[name])["Reservations"]
    return reservation["Instances"][0]


def state(ec2, name: str) -> str:
    return described(ec2, name)["State"]["Name"]


def states(ec2, name: str, last: str) -> list[str]:
    """The states that are seen, one after another, until the last one."""
    seen = []

    def there():
        now = state(ec2, name)
        if seen[-1:] != [now]:
            seen.append(now)
        return now == last
    until(there, f"{name} {last}")
    return seen


def code(call, **parameters) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"]


def test_an_instance_is_on_its_way_before_it_is_there(ec2, launch):
    [inst] = ec2.run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1)["Instances"]
    name = inst["InstanceId"]
    assert inst["State"] == {"Code": 0, "Name": "pending"}
    assert states(ec2, name, "running") == ["pending", "running"]
    [change] = ec2.stop_instances(InstanceIds=[name])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    assert states(ec2, name, "stopped") == ["stopping", "stopped"]
    ec2.start_instances(InstanceIds=[name])
    assert states(ec2, name, "running") == ["pending", "running"]
    ec2.terminate_instances(InstanceIds=[name])
    assert states(ec2, name, "terminated") == ["shutting-down", "terminated"]


def test_what_is_asked_for_twice_changes_nothing(ec2, launch):
    name = launch()
    [change] = ec2.start_instances(InstanceIds=[name])["StartingInstances"]
    assert change["PreviousState"] == change["CurrentState"] == {"Code": 16, "Name": "running"}
    ec2.stop_instances(InstanceIds=[name])
    states(ec2, name, "stopped")
    [change] = ec2.stop_instances(InstanceIds=[name])["StoppingInstances"]
    assert change["CurrentState"]["Name"] == "stopped"


def test_a_state_that_does_not_fit_is_refused_for_all_that_are_named(ec2, launch):
    name, other = launch(), launch()
    ec2.terminate_instances(InstanceIds=[name])
    states(ec2, name, "terminated")
    assert code(ec2.stop_instances, InstanceIds=[other, name]) == "IncorrectInstanceState"
    assert state(ec2, other) == "running"
    assert code(ec2.start_instances, InstanceIds=[name]) == "IncorrectInstanceState"
    ec2.stop_instances(InstanceIds=[other])
    assert code(ec2.start_instances, InstanceIds=[other]) == "IncorrectInstanceState"
    assert code(ec2.reboot_instances, InstanceIds=[other]) == "IncorrectInstanceState"
    ec2.reboot_instances(InstanceIds=[name])


def test_a_reboot_leaves_an_instance_running(ec2, launch):
    name = launch()
    ec2.reboot_instances(InstanceIds=[name])
    assert state(ec2, name) == "running"


@pytest.mark.parametrize("action", [
    "stop_instances", "start_instances", "reboot_instances", "terminate_instances", "describe_instances"])
def test_an_instance_that_is_not_there_is_not_found(ec2, action):
    assert code(getattr(ec2, action), InstanceIds=[NOWHERE]) == "InvalidInstanceID.NotFound"
    assert code(getattr(ec2, action), InstanceIds=["i-nonsense"]) == "InvalidInstanceID.Malformed"


def test_an_instance_is_described_with_zone_tags_groups_and_interfaces(ec2, launch):
    group = ec2.create_security_group(GroupName="described", Description="a group")["GroupId"]
    name = launch(Placement={"AvailabilityZone": "us-east-1b"}, SecurityGroupIds=[group],
                  TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "dr:chaos", "Value": "allowed"}]}])
    told = described(ec2, name)
    assert told["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert told["Tags"] == [{"Key": "dr:chaos", "Value": "allowed"}]
    assert told["SecurityGroups"] == [{"GroupId": group, "GroupName": "described"}]
    [interface] = told["NetworkInterfaces"]
    assert interface["Groups"] == told["SecurityGroups"]


def test_as_many_are_launched_as_may_be(ec2):
    assert len(ec2.run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=3)["Instances"]) == 3


def test_filters_choose_and_unknown_ones_are_refused(ec2, launch):
    name = launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "only", "Value": "this"}]}])

    def chosen(filter_name, *values):
        pages = ec2.describe_instances(Filters=[{"Name": filter_name, "Values": list(values)}])["Reservations"]
        return [inst["InstanceId"] for page in pages for inst in page["Instances"]]
    assert chosen("instance-id", name, NOWHERE) == [name]
    assert chosen("instance-id", NOWHERE) == []
    assert chosen("tag:only", "this") == [name]
    assert name in chosen("instance-state-name", "running")
    assert code(ec2.describe_instances, Filters=[{"Name": "colour", "Values": ["red"]}]) == "InvalidParameterValue"


def test_security_groups_are_replaced(ec2, launch):
    name = launch()
    closed = ec2.create_security_group(GroupName="closed", Description="nothing through")["GroupId"]
    ec2.modify_instance_attribute(InstanceId=name, Groups=[closed])
    told = described(ec2, name)
    assert [group["GroupId"] for group in told["SecurityGroups"]] == [closed]
    assert [group["GroupId"] for group in told["NetworkInterfaces"][0]["Groups"]] == [closed]
    absent = "sg-0123456789abcdef0"
    assert code(ec2.modify_instance_attribute, InstanceId=name, Groups=[absent]) == "InvalidGroup.NotFound"
    assert code(ec2.modify_instance_attribute, InstanceId=NOWHERE, Groups=[closed]) == "InvalidInstanceID.NotFound"


def test_security_groups_of_an_instance_with_two_interfaces_are_refused(ec2, launch):
    name = launch()
    second = ec2.create_network_interface(SubnetId=described(ec2, name)["SubnetId"])["NetworkInterface"]
    ec2.attach_network_interface(NetworkInterfaceId=second["NetworkInterfaceId"], InstanceId=name, DeviceIndex=1)
    assert len(described(ec2, name)["NetworkInterfaces"]) == 2
    groups = [group["GroupId"] for group in described(ec2, name)["SecurityGroups"]]
    assert code(ec2.modify_instance_attribute, InstanceId=name, Groups=groups) == "InvalidInstanceID"


def test_nobody_writes_tags_of_aws(ec2, launch):
    tag = [{"Key": "aws:autoscaling:groupName", "Value": "mine"}]
    assert code(ec2.create_tags, Resources=[launch()], Tags=tag) == "InvalidParameterValue"

"""What the stage makes for chaos experiments."""

import pytest
from conftest import until
from stage import Stage


@pytest.fixture
def stage(cloud):
    return Stage(cloud)


def test_instances_a_scaling_group_and_a_target_group_are_ready_when_they_are_made(stage):
    names = stage.create_instances("a", "b")
    assert [stage.instance(name)["Placement"]["AvailabilityZone"] for name in names] == ["us-east-1a", "us-east-1b"]
    assert {"Key": "dr:chaos", "Value": "allowed"} in stage.instance(names[0])["Tags"]
    assert len(stage.in_service(stage.create_scaling_group("stage", 2))) == 2
    assert stage.target_health(stage.create_target_group("stage", names)) == dict.fromkeys(names, "healthy")
    # Nothing may be registered yet.
    assert stage.target_health(stage.create_target_group("stage-empty", [], tagged=False)) == {}


def test_in_another_region_there_are_others(stage):
    other = Stage(stage.cloud.in_region("eu-west-1"))
    [name] = other.create_instances("c", tagged=False)
    assert other.instance(name)["Placement"]["AvailabilityZone"] == "eu-west-1c"
    assert not other.instance(name)["Tags"]
    other.create_scaling_group("stage", 1, zones="c")
    assert other.target_health(other.create_target_group("stage", [name])) == {name: "healthy"}


def test_the_watchdog_rests_and_keeps_what_it_is(stage, echo):
    scheduler = stage.cloud.client("scheduler")
    role = stage.cloud.client("lambda").get_function(FunctionName=echo)["Configuration"]["Role"]
    target = {"Arn": f"arn:aws:lambda:us-east-1:000000000000:function:{echo}", "RoleArn": role, "Input": '{"watch": {}}'}
    scheduler.create_schedule(Name="lifeboat-watchdog", ScheduleExpression="rate(1 minute)", Target=target,
                              FlexibleTimeWindow={"Mode": "OFF"})
    stage.set_watchdog("DISABLED")
    told = scheduler.get_schedule(Name="lifeboat-watchdog")
    assert (told["State"], told["ScheduleExpression"], told["Target"]["Input"]) == (
        "DISABLED", "rate(1 minute)", target["Input"])
    stage.set_watchdog("ENABLED")
    assert scheduler.get_schedule(Name="lifeboat-watchdog")["State"] == "ENABLED"
    scheduler.delete_schedule(Name="lifeboat-watchdog")


def test_an_alarm_stays_as_it_is_set(stage):
    arn = stage.create_alarm("stage")
    assert arn == "arn:aws:cloudwatch:us-east-1:000000000000:alarm:stage"

    def state():
        [alarm] = stage.cloud.client("cloudwatch").describe_alarms(AlarmNames=["stage"])["MetricAlarms"]
        return alarm["StateValue"]
    assert state() == "OK"
    stage.set_alarm("stage", "ALARM")
    until(lambda: state() == "ALARM", "ALARM")

"""Auto Scaling groups with instances of EC2 in them.

AWS (Amazon EC2 Auto Scaling user guide: "Health checks", "How suspended processes affect other processes",
"Termination policies"; API reference): a group keeps DesiredCapacity instances, spread over its zones, and tags them
with `aws:autoscaling:groupName` and with what PropagateAtLaunch says. An instance that does not run is Unhealthy, which
it stays, and is replaced: terminated first, then another is launched. What that takes is a process each: HealthCheck
finds it, ReplaceUnhealthy decides it, Terminate and Launch do it; a suspended one leaves things as they are, and what is
due then follows as soon as it is resumed. An instance that is being terminated is no longer InService.
TerminateInstanceInAutoScalingGroup takes an instance out, whether or not Terminate is suspended, and refuses one of no
group. New bounds move DesiredCapacity with them; a DesiredCapacity outside of them is refused. Instances are registered
with the group's target groups once they are in service, unless AddToLoadBalancer is suspended.

MiniStack reports ids of instances that do not exist in EC2, always healthy, and does not know SuspendProcesses,
ResumeProcesses, TerminateInstanceInAutoScalingGroup and target groups.

Not modelled: health as a load balancer sees it (HealthCheckType ELB), grace periods, lifecycle hooks, warm pools, standby,
AZRebalance. To find an unhealthy instance, to replace it and to launch one take half a second each, and a new instance
half a second more until it runs.
"""

import time

from ministack.core.responses import new_uuid, now_iso
from ministack.services import autoscaling, ec2

from . import instances, target_groups

FIND_S = 0.5
REPLACE_S = 0.5
LAUNCH_S = 0.5

PROCESSES = ("Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck",
             "InstanceRefresh", "ReplaceUnhealthy", "ScheduledActions")
GROUP_TAG = "aws:autoscaling:groupName"
RUNNING = ("pending", "running")


def active(group: dict, *processes: str) -> bool:
    return not any(name in group.setdefault("_suspended", {}) for name in processes)


def _real(member: dict) -> dict | None:
    return ec2._instances.get(member["InstanceId"])


def settle(now: float) -> None:
    """Brings every group of this account and Region to what it is at `now`, step by step in order of time."""
    for group in autoscaling._asgs.values():
        while _step(group, now):
            pass


def _due(group: dict, since: float, delay: float) -> float:
    """When something is done that could be done from `since` on; not before it was resumed."""
    return max(since, group.get("_resumed", 0.0)) + delay


def _step(group: dict, now: float) -> bool:
    """Does one thing that is due; False if nothing is."""
    return any(_member_step(group, member, now) for member in list(group["Instances"])) or _capacity_step(group, now)


def _member_step(group: dict, member: dict, now: float) -> bool:
    inst = _real(member)
    if inst:
        instances.settle_instance(inst, now)
    # What was terminated is forgotten after a minute.
    state, since = (inst["State"]["Name"], inst["_since"]) if inst else ("terminated", 0.0)
    if member["LifecycleState"].startswith("Terminating"):
        if state != "terminated":
            return False
        group["Instances"].remove(member)
        return True
    if member["LifecycleState"] == "Pending" and state == "running":
        member["LifecycleState"] = "InService"
        if active(group, "AddToLoadBalancer"):
            for arn in group.setdefault("TargetGroupARNs", []):
                target_groups.register(arn, [{"Id": member["InstanceId"]}], since)
        return True
    if member["HealthStatus"] == "Healthy" and state not in RUNNING and active(group, "HealthCheck"):
        found = _due(group, since, FIND_S)
        if now >= found:
            member.update(HealthStatus="Unhealthy", _unhealthy=found)
            return True
    if member["HealthStatus"] == "Unhealthy" and active(group, "ReplaceUnhealthy", "Terminate"):
        at = _due(group, member["_unhealthy"], REPLACE_S)
        if now >= at:
            _take_out(group, member, at)
            return True
    return False


def _take_out(group: dict, member: dict, at: float) -> None:
    member["LifecycleState"] = "Terminating"
    group["_short"] = at
    for arn in group.setdefault("TargetGroupARNs", []):
        target_groups.deregister(arn, [{"Id": member["InstanceId"]}], at)
    inst = _real(member)
    if inst and inst["State"]["Name"] not in ("shutting-down", "terminated"):
        instances.change(inst, "shutting-down", at)


def _capacity_step(group: dict, now: float) -> bool:
    members = [member for member in group["Instances"] if not member["LifecycleState"].startswith("Terminating")]
    missing = group["DesiredCapacity"] - len(members)
    at = _due(group, group.setdefault("_short", now), LAUNCH_S)
    if missing > 0 and active(group, "Launch") and now >= at and _zones(group):
        _launch(group, members, at)
        return True
    if missing < 0 and active(group, "Terminate"):
        _take_out(group, _to_give_up(members), now)
        return True
    return False


def _to_give_up(members: list[dict]) -> dict:
    """The oldest in the zone that has most; what is unhealthy goes first."""
    zones = [member["AvailabilityZone"] for member in members]
    return min(members, key=lambda member: (member["HealthStatus"] == "Healthy",
                                            -zones.count(member["AvailabilityZone"])))


def _zones(group: dict) -> dict[str, str]:
    """The zones of a group and a subnet in each."""
    named = [name.strip() for name in group["VPCZoneIdentifier"].split(",") if name.strip()]
    if named:
        return {ec2._subnets[name]["AvailabilityZone"]: name for name in named if name in ec2._subnets}
    found = {zone: instances.subnet_of(zone) for zone in group["AvailabilityZones"]}
    return {zone: subnet for zone, subnet in found.items() if subnet}


def _template(group: dict) -> dict:
    """What to launch, by the group's launch template or launch configuration."""
    given = group.get("LaunchTemplate") or {}
    if given:
        name = given["LaunchTemplateId"]
        key = "LaunchTemplateId" if name.startswith("lt-") else "LaunchTemplateName"
        spec = {key: name, "Version": given.get("Version")}
        data, _, _ = ec2._resolve_launch_template_data(spec)
        return ec2._slot_from_lt_data(spec, data or {})
    configuration = autoscaling._launch_configs.get(group.get("LaunchConfigurationName")) or {}
    return {"image_id": configuration.get("ImageId", "ami-00000000"),
            "instance_type": configuration.get("InstanceType", "t3.micro"),
            "key_name": configuration.get("KeyName", ""), "sg_ids": configuration.get("SecurityGroups")}


def _launch(group: dict, members: list[dict], at: float) -> None:
    """One instance, in the zone of the group that has fewest."""
    zones = _zones(group)
    zone = min(zones, key=lambda zone: sum(member["AvailabilityZone"] == zone for member in members))
    slot = _template(group)
    token = instances.launched_at.set(at)
    try:
        [inst] = ec2._launch_instances_internal(
            slot["image_id"], slot["instance_type"], zones[zone], 1, key_name=slot.get("key_name") or "",
            sg_ids=slot.get("sg_ids"), user_data=slot.get("user_data") or "", iam_profile=slot.get("iam_profile"))
    finally:
        instances.launched_at.reset(token)
    tags = {tag["Key"]: tag["Value"] for tag in slot.get("instance_tags") or []}
    tags |= {tag["Key"]: tag["Value"] for tag in group["Tags"] if tag.get("PropagateAtLaunch")}
    tags[GROUP_TAG] = group["AutoScalingGroupName"]
    ec2._tags[inst["InstanceId"]] = [{"Key": key, "Value": value} for key, value in tags.items()]
    group["Instances"].append({
        "InstanceId": inst["InstanceId"], "LifecycleState": "Pending", "HealthStatus": "Healthy", "AvailabilityZone": zone,
        "ProtectedFromScaleIn": group["NewInstancesProtectedFromScaleIn"], "LaunchTemplate": group["LaunchTemplate"],
        "LaunchConfigurationName": group["LaunchConfigurationName"]})


# The calls

def _invalid(message: str) -> tuple:
    return autoscaling._error("ValidationError", message)


def _group(params) -> tuple[dict | None, tuple | None]:
    name = autoscaling._p(params, "AutoScalingGroupName")
    group = autoscaling._asgs.get(name)
    return (group, None) if group else (None, _invalid(f"AutoScalingGroup name not found - {name}"))


def _number(params, name: str) -> int | None:
    given = autoscaling._p(params, name)
    return int(given) if given else None


def _sizes(params, group: dict) -> tuple[dict, tuple | None]:
    """MinSize, MaxSize and DesiredCapacity as the call wants them, or the refusal."""
    least, most, desired = (_number(params, name) for name in ("MinSize", "MaxSize", "DesiredCapacity"))
    least = group.get("MinSize", 0) if least is None else least
    most = group.get("MaxSize", 0) if most is None else most
    if least > most:
        return {}, _invalid(f"Max bound, {most}, must be greater than or equal to min bound, {least}")
    if desired is None:
        desired = min(max(group.get("DesiredCapacity", least), least), most)
    if not least <= desired <= most:
        return {}, _invalid(f"Desired capacity:{desired} must be between the specified min size:{least} and max "
                            f"size:{most}")
    return {"MinSize": least, "MaxSize": most, "DesiredCapacity": desired}, None


def _create(create):
    def mended(params):
        if autoscaling._p(params, "AutoScalingGroupName") not in autoscaling._asgs:
            _, refused = _sizes(params, {})
            if refused:
                return refused
        answer = create(params)
        if answer[0] == 200:
            group = autoscaling._asgs[autoscaling._p(params, "AutoScalingGroupName")]
            if not _zones(group):
                autoscaling._delete_asg(params)
                return _invalid("One or more of the specified zones or subnets do not exist")
            group["AvailabilityZones"] = list(_zones(group))
            group["TargetGroupARNs"] = autoscaling._parse_member_list(params, "TargetGroupARNs")
        return answer

    return mended


def _update(update):
    def mended(params):
        group, refused = _group(params)
        if refused:
            return refused
        sizes, refused = _sizes(params, group)
        if refused:
            return refused
        before = group["DesiredCapacity"]
        answer = update(params)
        group.update(sizes)
        group["AvailabilityZones"] = list(_zones(group)) or group["AvailabilityZones"]
        _scaled(group, before)
        return answer

    return mended


def _set_desired(params):
    group, refused = _group(params)
    if refused:
        return refused
    sizes, refused = _sizes({"DesiredCapacity": autoscaling._p(params, "DesiredCapacity")}, group)
    if refused:
        return refused
    before = group["DesiredCapacity"]
    group.update(sizes)
    _scaled(group, before)
    return autoscaling._xml(200, "SetDesiredCapacityResponse", "")


def _scaled(group: dict, before: int) -> None:
    if group["DesiredCapacity"] > before:
        group["_short"] = time.time()
    settle(time.time())


def _delete(delete):
    """A group with instances is deleted by force only, and takes them along."""

    def mended(params):
        group, refused = _group(params)
        if refused:
            return refused
        if group["Instances"] and autoscaling._p(params, "ForceDelete") != "true":
            return autoscaling._error(
                "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance "
                "request(s) still in the group.")
        for member in group["Instances"]:
            _take_out(group, member, time.time())
        return delete(params)

    return mended


def _processes(params) -> tuple[list[str], tuple | None]:
    named = autoscaling._parse_member_list(params, "ScalingProcesses") or list(PROCESSES)
    unknown = [name for name in named if name not in PROCESSES]
    return named, _invalid(f"Invalid process names: {unknown}") if unknown else None


def _suspend(params):
    group, refused = _group(params)
    named, wrong = _processes(params)
    if refused or wrong:
        return refused or wrong
    for name in named:
        group.setdefault("_suspended", {}).setdefault(name, f"User suspended at {now_iso()}")
    return autoscaling._xml(200, "SuspendProcessesResponse", "")


def _resume(params):
    group, refused = _group(params)
    named, wrong = _processes(params)
    if refused or wrong:
        return refused or wrong
    resumed = [name for name in named if group.setdefault("_suspended", {}).pop(name, None)]
    if resumed:
        group["_resumed"] = time.time()
    return autoscaling._xml(200, "ResumeProcessesResponse", "")


def group_of(instance: str) -> tuple[dict, dict] | None:
    """The group that has an instance, and what it is there."""
    return next(((group, member) for group in autoscaling._asgs.values() for member in group["Instances"]
                 if member["InstanceId"] == instance), None)


def _terminate(params):
    name = autoscaling._p(params, "InstanceId")
    found = group_of(name)
    if found is None:
        return _invalid(f"Instance Id not found - No managed instance found for instance ID: {name}")
    group, member = found
    if member["LifecycleState"].startswith("Terminating"):
        return autoscaling._error("ScalingActivityInProgress", f"The instance {name} is being terminated.")
    if autoscaling._p(params, "ShouldDecrementDesiredCapacity") == "true":
        if group["DesiredCapacity"] <= group["MinSize"]:
            return _invalid(
                f"Currently, desiredSize equals minSize ({group['MinSize']}). Terminating instance without replacement will "
                f"violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower "
                f"group's min size.")
        group["DesiredCapacity"] -= 1
    _take_out(group, member, time.time())
    return autoscaling._xml(
        200, "TerminateInstanceInAutoScalingGroupResponse",
        f"<TerminateInstanceInAutoScalingGroupResult><Activity><ActivityId>{new_uuid()}</ActivityId>"
        f"<AutoScalingGroupName>{group['AutoScalingGroupName']}</AutoScalingGroupName>"
        f"<Description>Terminating EC2 instance: {name}</Description>"
        f"<Cause>At {now_iso()} instance {name} was taken out of service in response to a user request.</Cause>"
        f"<StartTime>{now_iso()}</StartTime><StatusCode>InProgress</StatusCode><Progress>0</Progress>"
        f"</Activity></TerminateInstanceInAutoScalingGroupResult>")


def _attach(params):
    group, refused = _group(params)
    if refused:
        return refused
    for arn in autoscaling._parse_member_list(params, "TargetGroupARNs"):
        if arn not in group.setdefault("TargetGroupARNs", []):
            group["TargetGroupARNs"].append(arn)
            if active(group, "AddToLoadBalancer"):
                target_groups.register(arn, [{"Id": member["InstanceId"]} for member in group["Instances"]
                                             if member["LifecycleState"] == "InService"], time.time())
    return autoscaling._xml(200, "AttachLoadBalancerTargetGroupsResponse",
                            "<AttachLoadBalancerTargetGroupsResult/>")


def _with_more(instances_xml):
    """What MiniStack leaves out of a group's description follows its instances."""

    def mended(group):
        suspended = "".join(
            f"<member><ProcessName>{name}</ProcessName><SuspensionReason>{reason}</SuspensionReason></member>"
            for name, reason in group.get("_suspended", {}).items())
        arns = "".join(f"<member>{arn}</member>" for arn in group.get("TargetGroupARNs", []))
        return (f"{instances_xml(group)}<SuspendedProcesses>{suspended}</SuspendedProcesses>"
                f"<TargetGroupARNs>{arns}</TargetGroupARNs>")

    return mended


def apply() -> None:
    # Instances come and go by `settle`.
    autoscaling._reconcile_instances = lambda group: group.setdefault("_short", time.time())
    autoscaling._instances_xml = _with_more(autoscaling._instances_xml)
    instances.also_settled.append(settle)
    actions = autoscaling._ACTION_MAP
    actions.update({
        "CreateAutoScalingGroup": _create(autoscaling._create_asg),
        "UpdateAutoScalingGroup": _update(autoscaling._update_asg),
        "SetDesiredCapacity": _set_desired, "DeleteAutoScalingGroup": _delete(autoscaling._delete_asg),
        "SuspendProcesses": _suspend, "ResumeProcesses": _resume, "TerminateInstanceInAutoScalingGroup": _terminate,
        "AttachLoadBalancerTargetGroups": _attach,
    })
    for name in actions:
        actions[name] = instances.settled(actions[name])

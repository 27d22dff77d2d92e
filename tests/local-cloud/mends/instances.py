"""EC2 instances: how long they take to change, what refuses to, their zones, network interfaces and security groups.

AWS (EC2 API reference and "Amazon EC2 instance state changes"): an instance is pending, stopping or shutting-down before
it is running, stopped or terminated; a call that does not fit the state is IncorrectInstanceState, and changes none of
the instances that it names; to start what runs, to stop what is stopped and to terminate what is terminated changes
nothing; a reboot leaves the state as it is. Placement and subnet decide the zone. ModifyInstanceAttribute replaces all
security groups of an instance with one network interface, and is refused for one with several. A filter with an unknown
name is refused. Nobody can write tags that begin with `aws:`.

MiniStack changes states at once and from any state to any other (a terminated instance can be started), launches as few
instances as it may and all in the first zone, describes no network interfaces, ignores filters that it does not know,
`instance-id` among them, and has no ModifyInstanceAttribute.

Which refusal a reboot of a stopped instance meets is not documented; here it is IncorrectInstanceState as well.

Nothing runs in the background: what is due is done before the next call of EC2, Auto Scaling or load balancing, as of the
time when it was due.
"""

import contextvars
import time

from ministack.services import ec2

PENDING_S = 0.5
STOPPING_S = 0.5
SHUTTING_DOWN_S = 0.5

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
# What a state turns into by itself, and after how many seconds.
ON_THE_WAY = {"pending": ("running", PENDING_S), "stopping": ("stopped", STOPPING_S),
              "shutting-down": ("terminated", SHUTTING_DOWN_S)}

# Filters that are compared as they are; those on tags are MiniStack's.
FILTERS = {
    "instance-id": lambda inst: [inst["InstanceId"]],
    "instance-state-name": lambda inst: [inst["State"]["Name"]],
    "instance-state-code": lambda inst: [str(inst["State"]["Code"])],
    "instance-type": lambda inst: [inst["InstanceType"]],
    "image-id": lambda inst: [inst["ImageId"]],
    "availability-zone": lambda inst: [inst["Placement"]["AvailabilityZone"]],
    "vpc-id": lambda inst: [inst["VpcId"]],
    "subnet-id": lambda inst: [inst["SubnetId"]],
    "private-ip-address": lambda inst: [inst["PrivateIpAddress"]],
    "instance.group-id": lambda inst: [group["GroupId"] for group in inst["SecurityGroups"]],
    "instance.group-name": lambda inst: [group["GroupName"] for group in inst["SecurityGroups"]],
}

# What else has to be brought up to date before a call, in order (`scaling_groups` adds itself).
also_settled: list = []
# When the instances that are being launched begin; a time in the past where that was due and nobody looked.
launched_at: contextvars.ContextVar = contextvars.ContextVar("launched_at", default=None)


def change(inst: dict, state: str, at: float) -> None:
    """Puts an instance into a state as of the time `at` (seconds, `time.time`)."""
    inst["State"] = {"Code": CODES[state], "Name": state}
    inst["_since"] = at
    if state == "terminated":
        inst["_terminated_at"] = at
        for name in [eni["NetworkInterfaceId"] for eni in interfaces(inst)]:
            ec2._network_interfaces.pop(name, None)


def settle_instance(inst: dict, now: float) -> None:
    """Brings one instance to the state that it has at `now`."""
    following = ON_THE_WAY.get(inst["State"]["Name"])
    if following and now >= inst.get("_since", 0) + following[1]:
        change(inst, following[0], inst.get("_since", 0) + following[1])


def settle() -> None:
    """Does what is due in this account and Region."""
    now = time.time()
    for inst in list(ec2._instances.values()):
        settle_instance(inst, now)
    for settled in also_settled:
        settled(now)


def settled(handler):
    """A call that finds everything as it is at its time."""

    def mended(params):
        settle()
        return handler(params)

    return mended


def interfaces(inst: dict) -> list[dict]:
    """The network interfaces that are attached to an instance, the primary one first."""
    attached = [eni for eni in ec2._network_interfaces.values()
                if (eni.get("Attachment") or {}).get("InstanceId") == inst["InstanceId"]]
    return sorted(attached, key=lambda eni: eni["Attachment"]["DeviceIndex"])


def _launched(launch):
    """Instances are in the zone of their subnet, pending, and have a network interface."""

    def mended(image_id, instance_type, subnet_id, count, **options):
        at = launched_at.get() or time.time()
        created = launch(image_id, instance_type, subnet_id, count, **options)
        for inst in created:
            subnet = ec2._subnets.get(subnet_id, {})
            inst["Placement"]["AvailabilityZone"] = subnet.get(
                "AvailabilityZone", inst["Placement"]["AvailabilityZone"])
            _add_interface(inst)
            change(inst, "pending", at)
            settle_instance(inst, time.time())
        return created

    return mended


def _add_interface(inst: dict) -> None:
    before = set(ec2._network_interfaces)
    ec2._create_network_interface({"SubnetId": inst["SubnetId"]})
    [name] = set(ec2._network_interfaces) - before
    eni = ec2._network_interfaces[name]
    eni["Groups"], eni["PrivateIpAddress"] = list(inst["SecurityGroups"]), inst["PrivateIpAddress"]
    ec2._attach_network_interface({"NetworkInterfaceId": name, "InstanceId": inst["InstanceId"],
                                   "DeviceIndex": str(len(interfaces(inst)))})


def _run_instances(run):
    """As many as may be are launched, in the zone that is asked for."""

    def mended(params):
        zone = ec2._p(params, "Placement.AvailabilityZone")
        least, most = (int(ec2._p(params, name) or 1) for name in ("MinCount", "MaxCount"))
        if 1 <= least <= most:
            params = {**params, "MinCount": str(most)}
        if any(name.startswith("NetworkInterface.") for name in params):
            return ec2._error("UnsupportedOperation", "Not modelled here: attach interfaces one by one", 400)
        if any(name.startswith("TagSpecification.") and name.endswith(".Key") and ec2._p(params, name).startswith("aws:")
               for name in params):
            return _reserved()
        if zone and not ec2._p(params, "SubnetId"):
            subnet = subnet_of(zone)
            if subnet is None:
                return ec2._error("InvalidParameterValue", f"Invalid availability zone: [{zone}]", 400)
            params["SubnetId"] = subnet
        return run(params)

    return mended


def subnet_of(zone: str) -> str | None:
    """The default subnet of a zone."""
    return next((name for name, subnet in ec2._subnets.items()
                 if subnet["AvailabilityZone"] == zone and subnet.get("DefaultForAz")), None)


def _with_interfaces(instance_xml):
    def mended(inst):
        told = "".join(ec2._eni_fields_xml(eni) for eni in interfaces(inst))
        return instance_xml(inst).rstrip().removesuffix("</item>") + (
            f"<networkInterfaceSet>{told}</networkInterfaceSet></item>")

    return mended


def _matches(inst: dict, filters: dict) -> bool:
    """All filters hold; an unknown one has been refused before."""
    return ec2._resource_matches_tag_filters(inst["InstanceId"], filters) and all(
        any(ec2._glob_match(pattern, value) for pattern in patterns for value in FILTERS[name](inst))
        for name, patterns in filters.items() if name in FILTERS)


def _known_filters(describe):
    def mended(params):
        for name in ec2._parse_filters(params):
            if name not in FILTERS and not name.startswith("tag:") and name not in ("tag-key", "tag-value"):
                return ec2._error("InvalidParameterValue", f"The filter '{name}' is invalid", 400)
        return describe(params)

    return mended


def _named(params) -> tuple[list[dict], tuple | None]:
    """The instances that a call names, or the refusal."""
    found = []
    for name in ec2._parse_member_list(params, "InstanceId"):
        if not ec2._INSTANCE_ID_RE.match(name):
            return [], ec2._error("InvalidInstanceID.Malformed", f'Invalid id: "{name}"', 400)
        if name not in ec2._instances:
            return [], ec2._error("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist", 400)
        found.append(ec2._instances[name])
    return found, None


def _incorrect(message: str) -> tuple:
    return ec2._error("IncorrectInstanceState", message, 400)


def _change_all(action: str, to: str, done: tuple[str, ...], refusals: dict[str, str]):
    """An action that sends instances on their way to a state; those that are there or on their way stay as they are."""

    def handle(params):
        chosen, refused = _named(params)
        if refused:
            return refused
        for inst in chosen:
            if inst["State"]["Name"] in refusals:
                return _incorrect(refusals[inst["State"]["Name"]].format(inst["InstanceId"]))
        told = ""
        for inst in chosen:
            before = inst["State"]
            if before["Name"] not in done:
                change(inst, to, time.time())
                if to == "shutting-down":
                    _release_profile(inst)
            now = inst["State"]
            told += (f"<item><instanceId>{inst['InstanceId']}</instanceId>"
                     f"<previousState><code>{before['Code']}</code><name>{before['Name']}</name></previousState>"
                     f"<currentState><code>{now['Code']}</code><name>{now['Name']}</name></currentState></item>")
        return ec2._xml(200, f"{action}Response", f"<instancesSet>{told}</instancesSet>")

    return handle


def _release_profile(inst: dict) -> None:
    association = ec2._find_active_iam_instance_profile_association(inst["InstanceId"])
    if association:
        ec2._mark_iam_instance_profile_association_disassociated(association)


NOT_TO_STOP = "This instance '{}' is not in a state from which it can be stopped."
NOT_TO_START = "The instance '{}' is not in a state from which it can be started."
NOT_TO_REBOOT = "This instance '{}' is not in a state from which it can be rebooted."

stop = _change_all("StopInstances", "stopping", ("stopping", "stopped"), {
    "pending": "Instance '{}' cannot be stopped as it has never reached the 'running' state.",
    "shutting-down": NOT_TO_STOP, "terminated": NOT_TO_STOP})
start = _change_all("StartInstances", "pending", ("pending", "running"), {
    "stopping": NOT_TO_START, "shutting-down": NOT_TO_START, "terminated": NOT_TO_START})
terminate = _change_all("TerminateInstances", "shutting-down", ("shutting-down", "terminated"), {})


def _reboot(params):
    """Requests to reboot what is terminated are ignored."""
    chosen, refused = _named(params)
    if refused:
        return refused
    for inst in chosen:
        if inst["State"]["Name"] in ("stopping", "stopped"):
            return _incorrect(NOT_TO_REBOOT.format(inst["InstanceId"]))
    return ec2._xml(200, "RebootInstancesResponse", "<return>true</return>")


def _modify_attribute(params):
    chosen, refused = _named({**params, "InstanceId.1": ec2._p(params, "InstanceId")})
    if refused:
        return refused
    [inst] = chosen
    groups = ec2._parse_member_list(params, "GroupId")
    if not groups:
        return ec2._error("UnsupportedOperation", "Not modelled here: attributes other than Groups", 400)
    if inst["State"]["Name"] in ("shutting-down", "terminated"):
        return _incorrect(f"The instance '{inst['InstanceId']}' is {inst['State']['Name']}.")
    if len(interfaces(inst)) > 1:
        return ec2._error(
            "InvalidInstanceID", f"There are multiple interfaces attached to instance '{inst['InstanceId']}'. Please "
            f"specify an interface ID for the operation instead.", 400)
    for name in groups:
        if name not in ec2._security_groups:
            return ec2._error("InvalidGroup.NotFound", f"The security group '{name}' does not exist", 400)
    inst["SecurityGroups"] = [
        {"GroupId": name, "GroupName": ec2._security_groups[name]["GroupName"]} for name in dict.fromkeys(groups)]
    for eni in interfaces(inst):
        eni["Groups"] = list(inst["SecurityGroups"])
    return ec2._xml(200, "ModifyInstanceAttributeResponse", "<return>true</return>")


def _reserved() -> tuple:
    return ec2._error("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use", 400)


def _not_reserved(handler):
    def mended(params):
        if any(tag["Key"].lower().startswith("aws:") for tag in ec2._parse_tags(params)):
            return _reserved()
        return handler(params)

    return mended


def apply() -> None:
    ec2._launch_instances_internal = _launched(ec2._launch_instances_internal)
    ec2._instance_xml = _with_interfaces(ec2._instance_xml)
    ec2._matches_filters = _matches
    actions = ec2._ACTION_MAP
    actions.update({
        "RunInstances": _run_instances(ec2._run_instances), "StopInstances": stop, "StartInstances": start,
        "TerminateInstances": terminate, "RebootInstances": _reboot, "ModifyInstanceAttribute": _modify_attribute,
        "DescribeInstances": _known_filters(ec2._describe_instances),
        "CreateTags": _not_reserved(ec2._create_tags), "DeleteTags": _not_reserved(ec2._delete_tags),
    })
    for name in ("RunInstances", "StopInstances", "StartInstances", "TerminateInstances", "RebootInstances",
                 "ModifyInstanceAttribute", "DescribeInstances", "DescribeInstanceStatus", "DescribeInstanceAttribute",
                 "DescribeNetworkInterfaces", "DescribeTags"):
        actions[name] = settled(actions[name])

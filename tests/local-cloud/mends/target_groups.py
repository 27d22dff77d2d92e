"""Targets of a load balancer's target groups: which can be registered, and how healthy they are said to be.

AWS (Elastic Load Balancing API reference: RegisterTargets, DeregisterTargets, DescribeTargetHealth, TargetHealth,
TargetDescription; "Deregistration delay"): a target is an id and a port; without one it has the group's. An instance
must exist and run to be registered, else InvalidTarget. A target is unused while no load balancer forwards to its group,
while its instance does not run, or where its zone is not enabled for the load balancer; otherwise it is initial, then
healthy. A deregistered one is draining for the group's deregistration delay (300 s unless set) if it was in use, and
gone at once if not; registering it again ends that. Asked about by name, a target that is not registered is unused. What
is terminated is deregistered. A zone is told of targets of the type `ip` only: of instances it is neither taken nor
reported.

MiniStack calls every target healthy, whether it exists or not, keeps one port for each id, forgets what is deregistered at
once, and reports no zones.

The health checks themselves are not modelled: a running instance passes them, a second after it was registered.
"""

import ipaddress
import time

from ministack.services import alb, ec2

from . import instances

INITIAL_S = 1.0

NOT_REGISTERED = ("unused", "Target.NotRegistered", "Target is not registered to the target group")
NOT_IN_USE = ("unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")
ZONE_DISABLED = ("unused", "Target.NotInUse",
                 "Target is in an Availability Zone that is not enabled for the load balancer")
DRAINING = ("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
INITIAL = ("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
HEALTHY = ("healthy", "", "")


def _key(group: dict, target: dict) -> tuple:
    return target["Id"], target.get("Port") or _default_port(group)


def _default_port(group: dict) -> int | None:
    return None if group["TargetType"] == "lambda" else group.get("Port")


def register(arn: str, targets: list[dict], at: float) -> None:
    """Registers targets as of the time `at`, without looking whether they can be."""
    group = alb._tgs.get(arn)
    if group is None:
        return
    there = alb._targets.setdefault(arn, [])
    known = {_key(group, target) for target in there}
    fresh = [target for target in targets if _key(group, target) not in known]
    there += [{"Port": _default_port(group), **target, "_at": at} for target in fresh]
    wanted = {_key(group, target) for target in targets}
    group["_draining"] = [left for left in group.get("_draining", []) if _key(group, left) not in wanted]


def deregister(arn: str, targets: list[dict], at: float) -> None:
    """Takes targets out as of the time `at`."""
    group = alb._tgs.get(arn)
    if group is None:
        return
    wanted = {_key(group, target) for target in targets}
    gone = [target for target in alb._targets.get(arn, []) if _key(group, target) in wanted]
    alb._targets[arn] = [target for target in alb._targets.get(arn, []) if target not in gone]
    if gone and used_by(arn):
        delay = next((float(each["Value"]) for each in alb._tg_attrs.get(arn, [])
                      if each["Key"] == "deregistration_delay.timeout_seconds"), 300.0)
        group.setdefault("_draining", []).extend({**target, "_until": at + delay} for target in gone)


def settle(now: float) -> None:
    """Forgets what is drained, and what is terminated."""
    for arn, group in alb._tgs.items():
        group["_draining"] = [target for target in group.get("_draining", []) if target["_until"] > now]
        if group["TargetType"] == "instance":
            deregister(arn, [target for target in alb._targets.get(arn, []) if _state_of(target["Id"]) == "terminated"],
                       now)


def used_by(arn: str) -> list[dict]:
    """The load balancers whose listeners forward to a target group."""
    listeners = {rule["ListenerArn"] for rule in alb._rules.values() if arn in str(rule["Actions"])}
    balancers = {alb._listeners[name]["LoadBalancerArn"] for name in listeners if name in alb._listeners}
    return [alb._lbs[name] for name in sorted(balancers) if name in alb._lbs]


def _state_of(instance: str) -> str:
    return ec2._instances.get(instance, {"State": {"Name": "terminated"}})["State"]["Name"]


def _zone(group: dict, target: dict) -> str | None:
    """The zone as it is reported: that of an address in a subnet of the group's network."""
    if target.get("AvailabilityZone"):
        return target["AvailabilityZone"]
    if group["TargetType"] != "ip":
        return None
    address = ipaddress.ip_address(target["Id"])
    return next((subnet["AvailabilityZone"] for subnet in ec2._subnets.values()
                 if group.get("VpcId") in ("", subnet["VpcId"]) and address in ipaddress.ip_network(subnet["CidrBlock"])),
                None)


def _enabled_zones(balancers: list[dict]) -> set[str]:
    return {ec2._subnets[name]["AvailabilityZone"] for balancer in balancers for name in balancer.get("Subnets", [])
            if name in ec2._subnets}


def _health(arn: str, group: dict, target: dict, now: float) -> tuple[str, str, str]:
    balancers = used_by(arn)
    if not balancers:
        return NOT_IN_USE
    since = target.get("_at", 0.0)
    if group["TargetType"] == "instance":
        inst = ec2._instances[target["Id"]]
        state = inst["State"]["Name"]
        if state != "running":
            return "unused", "Target.InvalidState", f"Target is in the {state} state"
        enabled = _enabled_zones(balancers)
        if enabled and inst["Placement"]["AvailabilityZone"] not in enabled:
            return ZONE_DISABLED
        since = max(since, inst.get("_since", 0.0))
    return INITIAL if now < since + INITIAL_S else HEALTHY


# The calls

def _targets_of(params) -> list[dict]:
    """The call's targets, with the zones that MiniStack leaves out."""
    targets = alb._parse_targets_param(params)
    for number, target in enumerate(targets, 1):
        zone = alb._p(params, f"Targets.member.{number}.AvailabilityZone")
        if zone:
            target["AvailabilityZone"] = zone
    return targets


def _group(params) -> tuple[str, dict | None, tuple | None]:
    arn = alb._p(params, "TargetGroupArn")
    group = alb._tgs.get(arn)
    return arn, group, None if group else alb._error("TargetGroupNotFound", "One or more target groups not found")


def _register(params):
    arn, group, refused = _group(params)
    if refused:
        return refused
    targets = _targets_of(params)
    if group["TargetType"] == "instance":
        if any("AvailabilityZone" in target for target in targets):
            return alb._error("ValidationError", "An Availability Zone cannot be given for targets of the type instance")
        for target in targets:
            if target["Id"] not in ec2._instances:
                return alb._error("InvalidTarget", f"The following targets are not valid instances: '{target['Id']}'")
        idle = [f"'{target['Id']}'" for target in targets if _state_of(target["Id"]) != "running"]
        if idle:
            return alb._error("InvalidTarget", f"The following targets are not in a running state and cannot be "
                                               f"registered: {', '.join(idle)}")
    register(arn, targets, time.time())
    return alb._empty("RegisterTargets")


def _deregister(params):
    arn, _, refused = _group(params)
    if refused:
        return refused
    deregister(arn, _targets_of(params), time.time())
    return alb._empty("DeregisterTargets")


def _describe(params):
    arn, group, refused = _group(params)
    if refused:
        return refused
    now = time.time()
    told = {_key(group, target): (target, DRAINING) for target in group.get("_draining", [])}
    told |= {_key(group, target): (target, _health(arn, group, target, now)) for target in alb._targets.get(arn, [])}
    asked = _targets_of(params)
    if asked:
        told = {_key(group, target): told.get(_key(group, target), (target, NOT_REGISTERED)) for target in asked}
    return alb._xml(200, "DescribeTargetHealth", "<TargetHealthDescriptions>" + "".join(
        _description(group, identifier, port, target, health)
        for (identifier, port), (target, health) in told.items()) + "</TargetHealthDescriptions>")


def _description(group: dict, identifier: str, port: int | None, target: dict, health: tuple[str, str, str]) -> str:
    def element(name, value):
        return f"<{name}>{alb._esc(str(value))}</{name}>" if value else ""

    state, reason, description = health
    return ("<member><Target>" + element("Id", identifier) + element("Port", port)
            + element("AvailabilityZone", _zone(group, target)) + "</Target>" + element("HealthCheckPort", port)
            + "<TargetHealth>" + element("State", state) + element("Reason", reason)
            + element("Description", description) + "</TargetHealth></member>")


def apply() -> None:
    instances.also_settled.append(settle)
    alb._ACTION_MAP.update({
        "RegisterTargets": _register, "DeregisterTargets": _deregister, "DescribeTargetHealth": _describe})
    for name in alb._ACTION_MAP:
        alb._ACTION_MAP[name] = instances.settled(alb._ACTION_MAP[name])

"""Which actions and resources the calls of EC2, Auto Scaling, load balancing, Lambda and alarms are authorised on.

AWS (Service Authorization Reference): a call is authorised on each instance that it names, and ModifyInstanceAttribute on
the security groups too; calls of Auto Scaling on the group, by its ARN, which has an id in it; RegisterTargets and
DeregisterTargets on the target group; DescribeAlarms on the alarms. Calls that describe instances, Auto Scaling groups
and load balancing know no resources: a policy that names any does not allow them. Concurrency of a function is read,
set and released by three actions.

MiniStack asks about the first instance only, about an Auto Scaling group without its id, about the target group when its
targets are only described, and calls every action on a function's concurrency PutFunctionConcurrency.

An instance of no Auto Scaling group has no group to be authorised on: then it is every group.
"""

from ministack.core import iam_actions
from ministack.services import autoscaling

from . import scaling_groups
from .iam_of_rds import packed

NO_RESOURCE = {"ec2", "autoscaling", "elasticloadbalancing"}
ON_INSTANCES = {"StopInstances", "StartInstances", "RebootInstances", "TerminateInstances"}


def _numbered(parameter, prefix: str) -> list[str]:
    """The members of a list: `prefix`1, `prefix`2 …"""
    found = []
    while value := parameter(f"{prefix}{len(found) + 1}"):
        found.append(value)
    return found


def _group(name: str, region: str, account: str) -> str:
    group = autoscaling._asgs.get(name)
    return group["AutoScalingGroupARN"] if group else (
        f"arn:aws:autoscaling:{region}:{account}:autoScalingGroup:*:autoScalingGroupName/{name}")


def resources(service: str, action: str, parameter, region: str, account: str) -> list[str] | None:
    """The ARNs that a call is authorised on; None where MiniStack's own answer is right."""
    if service in NO_RESOURCE and action.startswith("Describe"):
        return ["*"]
    if service == "ec2" and action in ON_INSTANCES:
        return [f"arn:aws:ec2:{region}:{account}:instance/{name}" for name in _numbered(parameter, "InstanceId.")]
    if service == "ec2" and action == "ModifyInstanceAttribute":
        instance = f"arn:aws:ec2:{region}:{account}:instance/{parameter('InstanceId')}"
        return [instance, *(f"arn:aws:ec2:{region}:{account}:security-group/{name}"
                            for name in _numbered(parameter, "GroupId."))]
    if service == "autoscaling":
        name = parameter("AutoScalingGroupName")
        if action == "TerminateInstanceInAutoScalingGroup":
            found = scaling_groups.group_of(parameter("InstanceId"))
            name = found[0]["AutoScalingGroupName"] if found else "*"
        return [_group(name, region, account)] if name else None
    if service == "monitoring" and action == "DescribeAlarms":
        names = _numbered(parameter, "AlarmNames.member.") or ["*"]
        return [f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}" for name in names]
    return None


def _resources_of_request(extract_resource_arn):
    def mended(service, method, path, headers, body, query_params, region, account_id):
        action = iam_actions.extract_iam_action(service, method, path, headers, body, query_params) or ""
        found = resources(service, action.rpartition(":")[2], lambda name: iam_actions._query_param(query_params, name),
                          region, account_id)
        if not found:
            return extract_resource_arn(service, method, path, headers, body, query_params, region, account_id)
        return packed([(action, arn) for arn in found])

    return mended


def _concurrency(lambda_action):
    def mended(method, path):
        if path.rstrip("/").endswith("/concurrency"):
            return {"GET": "GetFunctionConcurrency", "DELETE": "DeleteFunctionConcurrency"}.get(
                method, "PutFunctionConcurrency")
        return lambda_action(method, path)

    return mended


def apply() -> None:
    """After `iam_of_rds`, which asks once for each resource of a call."""
    iam_actions.extract_resource_arn = _resources_of_request(iam_actions.extract_resource_arn)
    iam_actions._lambda_action = _concurrency(iam_actions._lambda_action)

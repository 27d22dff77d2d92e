"""Which resources a call of the RDS API is authorised on.

AWS asks for permission on every resource that the call names, of every type that the Service Authorization Reference
lists for the action, and for rds:AddTagsToResource when something is created with tags. MiniStack asks on the instance
or cluster that is named, else on "*", so a policy scoped to snapshots would refuse what AWS allows, and allow the rest.
"""

from collections.abc import Callable

from ministack.core import iam_actions, iam_evaluator

ACTION_HAS_NO_RESOURCE = {"DescribeAccountAttributes", "DescribeEvents", "DescribeDBEngineVersions",
                          "DescribeOrderableDBInstanceOptions", "DescribeCertificates"}

# Parameter -> resource type. A parameter that holds an ARN already is taken as it is.
TYPE_OF_PARAMETER = {
    "DBInstanceIdentifier": "db",
    "SourceDBInstanceIdentifier": "db",
    "TargetDBInstanceIdentifier": "db",
    "NewDBInstanceIdentifier": "db",
    "DBSnapshotIdentifier": "snapshot",
    "SourceDBSnapshotIdentifier": "snapshot",
    "TargetDBSnapshotIdentifier": "snapshot",
    "DBClusterIdentifier": "cluster",
    "DBClusterSnapshotIdentifier": "cluster-snapshot",
    "SourceDBClusterSnapshotIdentifier": "cluster-snapshot",
    "TargetDBClusterSnapshotIdentifier": "cluster-snapshot",
    "SnapshotIdentifier": "cluster-snapshot",
    "GlobalClusterIdentifier": "global-cluster",
    "DBSubnetGroupName": "subgrp",
    "DBParameterGroupName": "pg",
    "DBClusterParameterGroupName": "cluster-pg",
    "OptionGroupName": "og",
    "ResourceName": None,
    "SourceArn": None,
}

# Types that an action always needs; where the call names none, AWS takes the default one, and so its permission.
ALWAYS = {
    "RestoreDBInstanceFromDBSnapshot": {"og": "default:any", "pg": "default.any", "subgrp": "default"},
    "RestoreDBInstanceToPointInTime": {"og": "default:any", "pg": "default.any", "subgrp": "default"},
    "RestoreDBClusterFromSnapshot": {"og": "default:any", "cluster-pg": "default.any", "subgrp": "default"},
    "CreateDBInstance": {"og": "default:any", "pg": "default.any", "subgrp": "default"},
    "CreateDBInstanceReadReplica": {"og": "default:any", "pg": "default.any"},
    "DescribeDBInstances": {"db": "*"},
    "DescribeDBClusters": {"cluster": "*"},
    "DescribeDBSubnetGroups": {"subgrp": "*"},
    "DescribeDBParameterGroups": {"pg": "*"},
    "DescribeOptionGroups": {"og": "*"},
    "DescribeGlobalClusters": {"global-cluster": "*"},
}
# Named by the action and not among its resources.
NOT_ASKED_ON = {("FailoverDBCluster", "TargetDBInstanceIdentifier")}
# Actions which can name several types and need one of them; the type that is asked on when none is named.
ONE_OF = {"DescribeDBSnapshots": "snapshot", "DescribeDBClusterSnapshots": "cluster-snapshot"}

CREATES = {
    "CreateDBInstance": "DBInstanceIdentifier",
    "CreateDBSnapshot": "DBSnapshotIdentifier",
    "CopyDBSnapshot": "TargetDBSnapshotIdentifier",
    "CreateDBCluster": "DBClusterIdentifier",
    "CreateDBClusterSnapshot": "DBClusterSnapshotIdentifier",
    "CopyDBClusterSnapshot": "TargetDBClusterSnapshotIdentifier",
    "RestoreDBClusterFromSnapshot": "DBClusterIdentifier",
    "RestoreDBInstanceFromDBSnapshot": "DBInstanceIdentifier",
    "RestoreDBInstanceToPointInTime": "TargetDBInstanceIdentifier",
    "CreateDBSubnetGroup": "DBSubnetGroupName",
    "CreateDBParameterGroup": "DBParameterGroupName",
}


class Resources(str):
    """One ARN where MiniStack wants a string, with all checks of the call: pairs of action and ARN."""

    checks: list[tuple[str, str]]


def packed(checks: list[tuple[str, str]]) -> Resources:
    """Pairs of action and ARN as one string; there is at least one."""
    resources = Resources(checks[0][1])
    resources.checks = checks
    return resources


def _arn(kind: str | None, value: str, region: str, account: str) -> str:
    if value.startswith("arn:") or kind is None:
        return value
    region = "" if kind == "global-cluster" else region
    return f"arn:aws:rds:{region}:{account}:{kind}:{value.lower()}"


def resources(action: str, parameter: Callable[[str], str | None], tagged: bool, region: str, account: str,
              ) -> list[tuple[str, str]]:
    """The pairs of IAM action and ARN that a call needs permission for; `parameter` gives the call's own."""
    permission = f"rds:{action}"
    if action in ACTION_HAS_NO_RESOURCE:
        return [(permission, "*")]
    named: dict[str | None, list[str]] = {}
    for name, kind in TYPE_OF_PARAMETER.items():
        value = parameter(name)
        if value and (action, name) not in NOT_ASKED_ON:
            arn = _arn(kind, value, region, account)
            named.setdefault(kind or arn.split(":")[5], []).append(arn)
    for kind, value in ALWAYS.get(action, {}).items():
        named.setdefault(kind, [_arn(kind, value, region, account)])
    if not named and action in ONE_OF:
        named[ONE_OF[action]] = [_arn(ONE_OF[action], "*", region, account)]
    checks = [(permission, arn) for arns in named.values() for arn in arns] or [(permission, "*")]
    if tagged and action in CREATES and (created := parameter(CREATES[action])):
        kind = TYPE_OF_PARAMETER[CREATES[action]]
        checks.append(("rds:AddTagsToResource", _arn(kind, created, region, account)))
    return checks


def _resources_of_request(extract_resource_arn):
    """All resources of an RDS request, packed into the one string that MiniStack passes on."""

    def mended(service, method, path, headers, body, query_params, region, account_id):
        if service != "rds":
            return extract_resource_arn(service, method, path, headers, body, query_params, region, account_id)
        action = iam_actions._query_param(query_params, "Action") or ""
        tagged = any(name.startswith(("Tags.", "Tag.")) for name in query_params)
        return packed(resources(action, lambda name: iam_actions._query_param(query_params, name), tagged, region,
                                account_id))

    return mended


def _each_resource(enforce):
    """A call is allowed only if each of its resources is; the first refusal is the answer."""

    def mended(access_key_id, iam_action, service, region, resource_arn="*", service_context=None):
        for action, arn in getattr(resource_arn, "checks", [(iam_action, resource_arn)]):
            denied = enforce(access_key_id, action, service, region, resource_arn=arn,
                             service_context=service_context)
            if denied:
                return denied
        return None

    return mended


def apply() -> None:
    iam_actions.extract_resource_arn = _resources_of_request(iam_actions.extract_resource_arn)
    iam_evaluator.enforce = _each_resource(iam_evaluator.enforce)

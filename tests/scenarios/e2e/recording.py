"""What a session leaves for tests/scenarios/permissions: every role's policies, and every call that a role made.

Sessions run side by side (pytest-xdist), each on a cloud of its own. What is compared is all of them together.
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORDINGS = HERE.parent.parent.parent / ".cache" / "reports" / "permissions"


def forget() -> None:
    """Removes what earlier sessions left."""
    for recording in RECORDINGS.glob("*.json"):
        recording.unlink()


def record(stage, files: set[str], chosen: bool, worker: str) -> None:
    """Writes down what the stack's roles may do and did. `chosen`: only some of the files' tests were asked for."""
    iam = stage.cloud.client("iam")
    pages = stage.cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stage.stack)
    roles = {resource["PhysicalResourceId"]: resource["LogicalResourceId"]
             for page in pages for resource in page["StackResourceSummaries"]
             if resource["ResourceType"] == "AWS::IAM::Role"}
    policies = {logical: {
        "attached": iam.list_attached_role_policies(RoleName=physical)["AttachedPolicies"],
        "inline": {name: iam.get_role_policy(RoleName=physical, PolicyName=name)["PolicyDocument"]
                   for name in iam.list_role_policies(RoleName=physical)["PolicyNames"]},
    } for physical, logical in roles.items()}
    calls = {(roles[call["role"]], call["action"], call["resource"], call["allowed"])
             for call in stage.cloud.order("calls") if call["role"] in roles}
    RECORDINGS.mkdir(parents=True, exist_ok=True)
    (RECORDINGS / f"{worker}.json").write_text(json.dumps(
        {"files": sorted(files), "chosen": chosen, "policies": policies, "calls": sorted(calls)}, indent=1) + "\n")

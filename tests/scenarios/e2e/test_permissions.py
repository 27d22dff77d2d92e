"""Granted and used permissions, compared both ways, after everything else in this session ran with roles enforced.

What is granted and was not used is taken away, or explained in tests/scenarios/permissions.json, which says why the
local cloud cannot exercise it. Runs last (conftest.py), because it is about the whole session.
"""

import dataclasses
import json
import re
import subprocess
from fnmatch import fnmatchcase

import pytest
from deployment import TOOLS
from machines import SCENARIOS

EXPLAINED = json.loads((SCENARIOS / "permissions.json").read_text())
NEEDED = {"test_backups.py", "test_clusters.py", "test_fleet.py", "test_health.py", "test_machines.py",
          "test_recovery_points.py", "test_samples.py", "test_trouble.py"}


@pytest.fixture(scope="module")
def session(request):
    """Comparing makes sense only after all the others ran."""
    missing = NEEDED - {item.path.name for item in request.session.items}
    if missing or request.config.option.keyword or request.config.option.markexpr:
        pytest.skip(f"only with the whole of tests/scenarios/e2e; not in this run: {', '.join(sorted(missing)) or '-k'}")


@pytest.fixture(scope="module")
def roles(stage):
    """Physical name to logical id of the stack's roles."""
    pages = stage.cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName="lifeboat")
    return {resource["PhysicalResourceId"]: resource["LogicalResourceId"]
            for page in pages for resource in page["StackResourceSummaries"]
            if resource["ResourceType"] == "AWS::IAM::Role"}


@dataclasses.dataclass(frozen=True)
class Statement:
    role: str
    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@pytest.fixture(scope="module")
def granted(stage, roles):
    """Every statement of every role."""
    iam, found = stage.cloud.client("iam"), []
    for physical, logical in roles.items():
        assert iam.list_attached_role_policies(RoleName=physical)["AttachedPolicies"] == [], logical
        for name in iam.list_role_policies(RoleName=physical)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=physical, PolicyName=name)["PolicyDocument"]
            for statement in many(document["Statement"]):
                assert statement["Effect"] == "Allow" and "Sid" in statement, (logical, name, statement)
                found.append(Statement(logical, statement["Sid"], tuple(many(statement["Action"])),
                                       tuple(many(statement["Resource"]))))
    assert found
    return found


@pytest.fixture(scope="module")
def used(stage, roles):
    return [{**call, "role": roles[call["role"]]} for call in stage.cloud.order("calls") if call["role"] in roles]


def many(value):
    return value if isinstance(value, list) else [value]


def covers(pattern: str, value: str) -> bool:
    """IAM's wildcards; square brackets are nothing special."""
    return fnmatchcase(value, re.sub(r"\[", "[[]", pattern))


def unused_parts(statement: Statement, used: list[dict]) -> list[tuple[str, str, str]]:
    """The actions of a statement that were used on none of its resources, and the resources that none used."""
    calls = [call for call in used if call["allowed"] and call["role"] == statement.role]

    def exercised(action, resource):
        return any(covers(action.lower(), call["action"].lower()) and covers(resource, call["resource"])
                   for call in calls)
    actions = [action for action in statement.actions if not any(
        exercised(action, resource) for resource in statement.resources)]
    if len(actions) == len(statement.actions):
        return [(statement.role, statement.sid, action) for action in actions]
    resources = [resource for resource in statement.resources if not any(
        exercised(action, resource) for action in statement.actions)]
    return [(statement.role, statement.sid, part) for part in actions + resources]


def explains(entry: dict, role: str, sid: str, part: str) -> bool:
    """Whether an entry is about this action or resource."""
    return ("*" in many(entry["roles"]) or role in many(entry["roles"])) and sid == entry["sid"] and any(
        covers(pattern, part) for pattern in entry["parts"])


def test_what_is_granted_is_used_or_explained(session, granted, used):
    unused = [part for statement in granted for part in unused_parts(statement, used)]
    unexplained = [part for part in unused if not any(explains(entry, *part) for entry in EXPLAINED["unused"])]
    assert unexplained == [], "granted, never used: take it away, or explain it in tests/scenarios/permissions.json"
    stale = [(entry["sid"], pattern) for entry in EXPLAINED["unused"] for pattern in entry["parts"] if not entry.get(
        "sometimes") and not any(explains({**entry, "parts": [pattern]}, *part) for part in unused)]
    assert stale == [], "explained in tests/scenarios/permissions.json, but used or not granted"


def test_what_was_refused_is_explained(session, used):
    """The other way: nothing was tried that is not granted, but for what a test provokes."""
    refused = [(call["role"], call["action"], call["resource"]) for call in used if not call["allowed"]]
    unexplained = [call for call in refused if not any(
        call[0] == entry["role"] and call[1] == entry["action"] and covers(entry["resource"], call[2])
        for entry in EXPLAINED["refused"])]
    assert unexplained == []


def test_a_permission_names_its_actions_and_its_resources(granted):
    """No wildcard in an action; `*` for a resource only where AWS offers no other."""
    assert [statement for statement in granted if any("*" in action or "?" in action for action in statement.actions)] == []
    everywhere = {action for statement in granted if "*" in statement.resources for action in statement.actions}
    assert everywhere - set(EXPLAINED["on every resource"]) == set(), "AWS can restrict these to resources"
    assert set(EXPLAINED["on every resource"]) - everywhere == set(), "explained, and not granted so any more"


def test_parliament_finds_nothing_that_is_not_explained(stage, roles, tmp_path):
    """Unknown actions, actions that the resource does not fit, conditions that never hold, too much privilege."""
    iam = stage.cloud.client("iam")
    for physical, logical in roles.items():
        for name in iam.list_role_policies(RoleName=physical)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=physical, PolicyName=name)["PolicyDocument"]
            (tmp_path / f"{logical}.{name}.json").write_text(json.dumps(document))
    done = subprocess.run([TOOLS / "parliament", "--directory", tmp_path, "--json"], text=True, capture_output=True,
                          check=False)
    assert not done.stderr, done.stderr
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    seen = {(finding["issue"], finding["location"]["filepath"].rsplit("/", 1)[-1].removesuffix(".json"))
            for finding in findings}
    explained = {(entry["issue"], policy) for entry in EXPLAINED["parliament"] for policy in many(entry["policies"])}
    assert seen - explained == set(), [finding for finding in findings if (
        finding["issue"], finding["location"]["filepath"].rsplit("/", 1)[-1].removesuffix(".json")) not in explained]
    assert explained - seen == set(), "explained, and not found any more"

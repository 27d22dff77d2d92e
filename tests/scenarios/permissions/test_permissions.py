"""Granted and used permissions, compared both ways, after the end-to-end tests ran with roles enforced (`make test-e2e`).

What is granted and was not used is taken away, or explained in tests/scenarios/permissions.json, which says why the
local cloud cannot exercise it. Needs no cloud: it reads what each of those sessions recorded (e2e/recording.py).
"""

import dataclasses
import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SCENARIOS / "e2e"), str(SCENARIOS.parent / "local-cloud")]

from deployment import TOOLS  # noqa: E402
from recording import RECORDINGS  # noqa: E402

EXPLAINED = json.loads((SCENARIOS / "permissions.json").read_text())


@dataclasses.dataclass(frozen=True)
class Statement:
    role: str
    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@pytest.fixture(scope="module")
def recordings():
    """Of all files: comparing makes sense only after all of them ran."""
    found = [json.loads(path.read_text()) for path in sorted(RECORDINGS.glob("*.json"))]
    needed = {path.name for path in (SCENARIOS / "e2e").glob("test_*.py")}
    ran = {name for recording in found if not recording["chosen"] for name in recording["files"]}
    assert ran >= needed, f"first run `make test-e2e` whole; these did not run: {', '.join(sorted(needed - ran))}"
    return found


@dataclasses.dataclass(frozen=True)
class Session:
    """One of the sessions: every statement of every role, and every call that was made with one."""

    statements: list[Statement]
    calls: list[dict]


@pytest.fixture(scope="module")
def sessions(recordings):
    """They deployed one template: the n-th statement is the same in all, but for what has a name of chance in it."""
    found = []
    for recording in recordings:
        statements = []
        for role, told in sorted(recording["policies"].items()):
            assert told["attached"] == [], role
            for name, document in sorted(told["inline"].items()):
                for statement in many(document["Statement"]):
                    assert statement["Effect"] == "Allow" and "Sid" in statement, (role, name, statement)
                    statements.append(Statement(role, statement["Sid"], tuple(many(statement["Action"])),
                                                tuple(many(statement["Resource"]))))
        names = ("role", "action", "resource", "allowed")
        found.append(Session(statements, [dict(zip(names, call, strict=True)) for call in recording["calls"]]))
    assert all(session.statements for session in found)
    assert len({tuple((each.role, each.sid, each.actions) for each in session.statements) for session in found}) == 1
    return found


def many(value):
    return value if isinstance(value, list) else [value]


def covers(pattern: str, value: str) -> bool:
    """IAM's wildcards; square brackets are nothing special."""
    return fnmatchcase(value, re.sub(r"\[", "[[]", pattern))


def unused_parts(statement: Statement, calls: list[dict]) -> set[int]:
    """The actions of a statement that were used on none of its resources, and the resources that none used: which of
    its parts, the actions first."""
    calls = [call for call in calls if call["allowed"] and call["role"] == statement.role]

    def exercised(action, resource):
        return any(covers(action.lower(), call["action"].lower()) and covers(resource, call["resource"])
                   for call in calls)
    table = [[exercised(action, resource) for resource in statement.resources] for action in statement.actions]
    actions = {at for at, row in enumerate(table) if not any(row)}
    return actions | {len(table) + at for at in range(len(statement.resources)) if not any(row[at] for row in table)}


def unused_everywhere(sessions: list[Session]) -> list[tuple[str, str, str]]:
    """What no session used of a statement: its actions, if none of them was, and otherwise those and its resources."""
    found = []
    for at, statement in enumerate(sessions[0].statements):
        unused = set.intersection(*(unused_parts(session.statements[at], session.calls) for session in sessions))
        parts = statement.actions + statement.resources
        if unused >= set(range(len(statement.actions))):
            parts = statement.actions
        found += [(statement.role, statement.sid, part) for at, part in enumerate(parts) if at in unused]
    return found


def explains(entry: dict, role: str, sid: str, part: str) -> bool:
    """Whether an entry is about this action or resource."""
    return ("*" in many(entry["roles"]) or role in many(entry["roles"])) and sid == entry["sid"] and any(
        covers(pattern, part) for pattern in entry["parts"])


def test_what_is_granted_is_used_or_explained(sessions):
    unused = unused_everywhere(sessions)
    unexplained = [part for part in unused if not any(explains(entry, *part) for entry in EXPLAINED["unused"])]
    assert unexplained == [], "granted, never used: take it away, or explain it in tests/scenarios/permissions.json"
    stale = [(entry["sid"], pattern) for entry in EXPLAINED["unused"] for pattern in entry["parts"] if not entry.get(
        "sometimes") and not any(explains({**entry, "parts": [pattern]}, *part) for part in unused)]
    assert stale == [], "explained in tests/scenarios/permissions.json, but used or not granted"


def test_what_was_refused_is_explained(sessions):
    """The other way: nothing was tried that is not granted, but for what a test provokes."""
    refused = [(call["role"], call["action"], call["resource"]) for session in sessions for call in session.calls
               if not call["allowed"]]
    unexplained = [call for call in refused if not any(
        call[0] == entry["role"] and call[1] == entry["action"] and covers(entry["resource"], call[2])
        for entry in EXPLAINED["refused"])]
    assert unexplained == []


def test_a_permission_names_its_actions_and_its_resources(sessions):
    """No wildcard in an action; `*` for a resource only where AWS offers no other."""
    granted = sessions[0].statements
    assert [statement for statement in granted if any("*" in action or "?" in action for action in statement.actions)] == []
    everywhere = {action for statement in granted if "*" in statement.resources for action in statement.actions}
    assert everywhere - set(EXPLAINED["on every resource"]) == set(), "AWS can restrict these to resources"
    assert set(EXPLAINED["on every resource"]) - everywhere == set(), "explained, and not granted so any more"


def test_parliament_finds_nothing_that_is_not_explained(recordings, tmp_path):
    """Unknown actions, actions that the resource does not fit, conditions that never hold, too much privilege."""
    for role, told in recordings[0]["policies"].items():
        for name, document in told["inline"].items():
            (tmp_path / f"{role}.{name}.json").write_text(json.dumps(document))
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

"""Every state of every machine fails in turn, is killed, run twice, robbed of its answer; see machines.py.

    LIFEBOAT_SCENARIOS=full      every case (make test-scenarios-full), not only the covering subset
    LIFEBOAT_SCENARIOS=REGEX     the cases whose name matches, of all of them
    LIFEBOAT_WRITE_GOLDEN=1      write the golden lists anew: review the difference
"""

import json
import os
import re

import pytest
from machines import ROOT, SCENARIOS, cases, descriptions, error_classes

WANTED = os.environ.get("LIFEBOAT_SCENARIOS", "")
GOLDEN = SCENARIOS / "golden"

CHOSEN = cases(full=bool(WANTED))
if WANTED not in ("", "full"):
    CHOSEN = [case for case in CHOSEN if re.search(WANTED, case.name)]
WHOLE = WANTED in ("", "full")


@pytest.fixture(scope="module")
def results(harness):
    """All cases, run on several databases at once."""
    found = harness.run(CHOSEN)
    slowest = sorted(found.items(), key=lambda pair: -pair[1].seconds)
    report = ROOT / ".cache" / "reports" / "scenarios.txt"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("".join(f"{result.seconds:7.2f} s  {'FAILED' if result.findings else 'ok':6}  {name}\n"
                              for name, result in slowest))
    print(f"\n{len(found)} cases, {sum(result.seconds for result in found.values()):.0f} s on {len(harness.lanes)} lanes; "
          f"each one's time is in {report.relative_to(ROOT)}")
    return found


@pytest.fixture
def nothing_left():
    """Each case looks after its own leftovers; the tests below only read what was found."""


@pytest.mark.parametrize("description", descriptions(), ids=lambda description: description.name)
def test_every_state_is_described(description):
    assert description.faults() == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_what_is_due_afterwards(results, case):
    assert not results[case.name].findings, "\n".join(results[case.name].findings)


def test_each_lane_runs_undisturbed_at_the_end(results):
    last = {name: result.findings for name, result in results.items() if "-undisturbed-" in name}
    assert last and not any(last.values()), last


def check_golden(name: str, found: list[str], meaning: str):
    path = GOLDEN / name
    if os.environ.get("LIFEBOAT_WRITE_GOLDEN") == "1":
        path.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(path.read_text()), f"{meaning}; LIFEBOAT_WRITE_GOLDEN=1 writes {path.name} anew"


@pytest.mark.skipif(not WHOLE, reason="a choice of cases was asked for, and the lists are about all of them")
def test_the_states_that_no_case_enters_are_known(results):
    unvisited = [
        f"{description.name}: {state}" for description in descriptions()
        for state in sorted(set(description.states) - set().union(*(
            result.entered for name, result in results.items() if name.startswith(f"{description.name}-"))))]
    check_golden("unvisited-states.json", unvisited, "states of the machines that no case enters")


def test_the_errors_that_no_case_ends_in_are_known():
    """Of the full matrix; that each case ends as it must is what the cases themselves assert."""
    reached = {case.ends_in for case in cases(full=True)}
    unreached = sorted(name for name in error_classes() if name not in reached)
    check_golden("unreached-errors.json", unreached, "names of errors that no case of the full matrix ends in")

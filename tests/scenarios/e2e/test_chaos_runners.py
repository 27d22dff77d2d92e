"""The runner dies after each entry of its journal, for every fault, and nobody starts it again: its execution is stopped,
its lease runs out, and the watchdog brings the world back to what was recorded.
"""

import contextlib
import threading

import pytest
from experiments import (
    Subjects,
    calls_of,
    came_to,
    each,
    journal,
    let_the_lease_run_out,
    operation_of,
    phase,
    report,
    watch,
)
from stage import until
from test_chaos import FAULTS

STATES = ("ArmExperiment", "InjectFaults", "ObserveExperiment", "RollBackFaults", "CheckRecovery")
# What is killed in these states was going to end anyway: the experiment is cancelled as soon as its faults are in, instead
# of waiting for their time to be over.
AFTER_THE_FAULTS = ("ObserveExperiment", "RollBackFaults", "CheckRecovery")
# No experiment is over by itself before its runner is stopped, also on a busy machine: milliseconds.
LASTING = {"duration": 600_000}
# What has nothing to undo, and has settled, is put back within the look that heard of the end.
WITHOUT_UNDO = {"rds-reboot", "ec2-reboot", "ec2-terminate"}
WRITE = "dynamodb:PutItem"
TOGETHER = 15
# For how long something is waited for that takes seconds on a machine with nothing else to do.
PATIENCE = 240


def entries(stage, execution) -> list[tuple[str, int]]:
    """State and number of each call by which the journal was written."""
    return sorted({(call["state"], call["call"]) for call in calls_of(stage, execution)
                   if call["state"] in STATES and WRITE in call["actions"]})


def was_made(stage, execution, state: str, call: int) -> bool:
    return any((made["state"], made["call"]) == (state, call) for made in calls_of(stage, execution))


def cancelled_when_its_faults_are_in(stage, execution) -> str:
    operation = operation_of(stage, execution)
    until("its faults are in", lambda: phase(stage, operation) not in (None, "injecting"), PATIENCE, pause=0.2)
    stage.invoke("ChaosRunner", {"cancel": {"operationId": operation, "by": "ada", "reason": "enough seen"}})
    return operation


def killed(stage, subject, state: str, call: int) -> tuple[str, str, bool]:
    """An experiment whose runner dies in a state once AWS carried out its n-th call, and is not started again."""
    name = f"killed-{subject.name}-{state}-{call}"[:80]
    order = stage.cloud.order("orders", {"execution": name, "state": state, "count": 0, "effect": {"killAtCall": call}})
    execution = stage.start("ChaosExperiment", subject.experiment(parameters=LASTING), name=name)
    operation = cancelled_when_its_faults_are_in(stage, execution) if state in AFTER_THE_FAULTS else None
    operation = operation or operation_of(stage, execution)
    client = stage.cloud.client("stepfunctions")

    def over():
        [mine] = [one for one in stage.cloud.order("orders") if one["execution"] == name]
        if was_made(stage, execution, state, call):
            return mine["finished"] and "killed"
        # It came to its end, or past this state, with fewer calls.
        passed = mine["finished"] and state not in AFTER_THE_FAULTS
        return (passed or client.describe_execution(executionArn=execution)["status"] != "RUNNING") and "not killed"
    came = until(f"{name} is killed", over, PATIENCE, pause=0.05)
    with contextlib.suppress(client.exceptions.ClientError):
        client.stop_execution(executionArn=execution)
    stage.cloud.order(f"orders?execution={name}", method="DELETE")
    assert order is not None
    return execution, operation, came == "killed"


def recorded(stage, execution: str) -> dict | None:
    """What is recorded of an operation, once it is over."""
    record = stage.operation(execution)
    return record if record["status"] != "running" else None


def over_at_last(stage, operation: str, what: str) -> None:
    """Waits until the watchdog is done. An invocation that was under way when the execution was stopped may write once
    more, and has a lease again: that runs out, too."""
    def over():
        now = journal(stage, operation)
        if (now["holder"] or "").startswith("arn:"):
            let_the_lease_run_out(stage, operation)
        return now["phase"] in ("ended", "stuck") and now
    now = until(f"{what}: it is over", over, PATIENCE, pause=1)
    assert now["phase"] == "ended", (what, now)


@pytest.fixture(scope="module")
def deaths(stage):
    """For every fault and every entry of its journal: what the watchdog made of it."""
    subjects = Subjects(stage)

    def die(fault):
        subject, came = subjects.make(fault), []
        reference = stage.start("ChaosExperiment", subject.experiment(parameters=LASTING))
        cancelled_when_its_faults_are_in(stage, reference)
        assert stage.finish(reference, 240)["status"] == "SUCCEEDED"
        until(f"{fault}: as recorded", subject.as_recorded)
        for state, call in entries(stage, reference):
            name = f"{fault}, killed in {state} at call {call}"
            execution, operation, was_killed = killed(stage, subject, state, call)
            over_at_last(stage, operation, name)
            told = report(stage, operation)
            # Its execution cannot say what became of it.
            record = until(f"{name}: its operation is over", lambda of=execution: recorded(stage, of), PATIENCE)
            told["record"] = (record["status"], record["result"]["status"])
            with contextlib.suppress(Exception):
                until(f"{fault}: as recorded", subject.as_recorded, 30)
            came.append((f"{state}, call {call}", was_killed, told, subject.as_recorded(), subject.look()))
        return subject, came
    over = threading.Event()

    def look():
        while not over.wait(0.5):
            # One that was too slow is tried again, as its schedule would.
            with contextlib.suppress(Exception):
                watch(stage)
    watchdog = threading.Thread(target=look, daemon=True)
    watchdog.start()
    try:
        return each(FAULTS, die, TOGETHER)
    finally:
        over.set()
        watchdog.join()


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_entry_the_runner_dies_after_the_world_is_put_back(stage, deaths, fault):
    subject, came = came_to(deaths, fault)
    states = {where.split(",")[0] for where, was_killed, *_ in came if was_killed}
    planned = {where.split(",")[0] for where, *_ in came}
    assert planned >= {"ArmExperiment", "InjectFaults"}, came
    assert planned - states <= (set(AFTER_THE_FAULTS) if fault in WITHOUT_UNDO else set()), came
    for where, _, told, as_recorded, seen in came:
        assert as_recorded, (where, seen, subject.recorded)
        assert told["commands"] == [], where
        assert told["record"] == ("partial", told["status"]), where
        assert told["status"] in ("rolled-back", "aborted"), (where, told["reason"])
    told = [told for where, was_killed, told, *_ in came if was_killed and where.startswith("InjectFaults")]
    assert {one["status"] for one in told} == {"rolled-back"}
    assert any(one["reason"]["kind"] == "runner-lost" for one in told)

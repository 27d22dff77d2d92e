"""The life of an execution: how it ends, what its history tells, how large its data may be.

Does not touch expressions (`jsonata`) nor child executions (`child_executions`).
"""

import contextvars
import copy
import json
import threading
import time

from ministack.services import stepfunctions as sfn

DATA_LIMIT = 262_144
"""Bytes of UTF-8 that a state's input or output may have."""

_current: contextvars.ContextVar = contextvars.ContextVar("execution", default=None)
_history_lock = threading.Lock()


class Ended(Exception):  # noqa: N818  (not an error)
    """This execution is over (stopped or timed out); its threads have nothing more to do."""


def current() -> dict | None:
    """The execution that the calling thread works for. A child of a distributed Map counts as its parent."""
    return _current.get()


def check_still_running() -> None:
    execution = _current.get()
    if execution is not None and execution["status"] != "RUNNING":
        raise Ended(execution["status"])


def _add_event_once(add_event):
    """Ids of events are 1, 2, 3 … without gap or double. MiniStack counts the list, from several threads at once."""

    def mended(execution, event_type, details=None):
        with _history_lock:
            event = add_event(execution, event_type, details)
            event.setdefault("previousEventId", event["id"] - 1)
            return event

    return mended


def _run_with_time_limit(run_execution):
    """An execution longer than the definition's TimeoutSeconds ends TIMED_OUT. MiniStack ignores the field."""

    def mended(execution_arn):
        execution = sfn._executions.get(execution_arn)
        watchdog = None
        machine = sfn._state_machines.get(execution["stateMachineArn"]) if execution else None
        if machine:
            seconds = json.loads(machine["definition"]).get("TimeoutSeconds")
            if seconds:
                context = contextvars.copy_context()
                watchdog = threading.Timer(seconds, context.run, (_time_out, execution))
                watchdog.daemon = True
                watchdog.start()
        token = _current.set(execution)
        try:
            run_execution(execution_arn)
        finally:
            _current.reset(token)
            if watchdog:
                watchdog.cancel()

    return mended


def _time_out(execution: dict) -> None:
    if execution["status"] == "RUNNING":
        execution.update(status="TIMED_OUT", error="States.Timeout", stopDate=sfn.now_iso())
        sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}})
        sfn._emit_execution_status_event(execution)


def _fail_only_once(fail_execution):
    """A status is final. MiniStack turns a stopped execution into a FAILED one when its last task returns."""

    def mended(execution, error, cause):
        if execution["status"] == "RUNNING":
            fail_execution(execution, error, cause)

    return mended


def _sleep_while_running(seconds: float) -> None:
    """A stopped execution does not wait out its Wait states and retry intervals."""
    deadline = time.monotonic() + seconds * sfn._SFN_WAIT_SCALE
    while (left := deadline - time.monotonic()) > 0:
        check_still_running()
        time.sleep(min(left, 0.05))
    check_still_running()


def _within_limits(execute):
    """A state whose output passes 256 KiB fails the execution with States.DataLimitExceeded."""

    def mended(state, raw_input, *rest):
        check_still_running()
        output, following = execute(state, raw_input, *rest)
        size = len(json.dumps(output, ensure_ascii=False).encode())
        if size > DATA_LIMIT:
            ctx = rest[-1]
            raise sfn._ExecutionError(
                "States.DataLimitExceeded",
                f"The state/task '{ctx['State']['Name']}' returned a result with a size exceeding the maximum number "
                f"of bytes service limit.")
        return output, following

    return mended


def _not_for_catching(error_matches):
    """States.ALL and States.TaskFailed catch neither States.DataLimitExceeded nor States.Runtime."""

    def mended(error_equals, error):
        if error in ("States.DataLimitExceeded", "States.Runtime"):
            return error in error_equals
        return error_matches(error_equals, error)

    return mended


def _run_branch(states, start_at, data, execution, ctx):
    """A branch or an iteration has variables of its own, and each of its states is in the history.

    It reads the variables around it and cannot change them. A child of a distributed Map is an execution of its own:
    it sees neither the variables nor the execution around it. MiniStack shares one dictionary among all, and writes
    nothing to the history.
    """
    ctx = copy.copy(ctx)
    if "mapRunArn" in execution:
        ctx["variables"] = {}
        ctx["Execution"] = {"Id": execution["executionArn"], "Name": execution["name"],
                            "Input": data, "StartTime": execution["startDate"]}
    else:
        ctx["variables"] = copy.deepcopy(ctx.get("variables", {}))
    data, name = copy.deepcopy(data), start_at
    while name:
        check_still_running()
        state = states.get(name)
        if state is None:
            raise sfn._ExecutionError("States.Runtime", f"There is no state '{name}'")
        kind = state.get("Type")
        ctx["State"] = {"Name": name, "EnteredTime": sfn.now_iso(), "RetryCount": 0}
        sfn._add_event(execution, f"{kind}StateEntered",
                       {"stateEnteredEventDetails": {"name": name, "input": json.dumps(data)}})
        entered = name
        if kind == "Fail":
            raise sfn._ExecutionError(*sfn._fail_state_error(state, data, ctx))
        if kind == "Succeed":
            data, name = sfn._apply_output_path(state, sfn._apply_input_path(state, data, ctx), ctx), None
        elif kind in ("Task", "Parallel", "Map"):
            data, name = getattr(sfn, f"_execute_{kind.lower()}")(state, data, execution, ctx)
        elif kind in ("Pass", "Choice", "Wait"):
            data, name = getattr(sfn, f"_execute_{kind.lower()}")(state, data, ctx)
        else:
            raise sfn._ExecutionError("States.Runtime", f"State '{entered}' has the unknown type {kind!r}")
        sfn._add_event(execution, f"{kind}StateExited",
                       {"stateExitedEventDetails": {"name": entered, "output": json.dumps(data)}})
    return data


def apply() -> None:
    sfn._add_event = _add_event_once(sfn._add_event)
    sfn._run_execution = _run_with_time_limit(sfn._run_execution)
    sfn._fail_execution = _fail_only_once(sfn._fail_execution)
    sfn._scaled_sleep = _sleep_while_running
    sfn._error_matches = _not_for_catching(sfn._error_matches)
    sfn._run_sub_machine = _run_branch
    for name in ("_execute_pass", "_execute_task", "_execute_parallel", "_execute_map"):
        setattr(sfn, name, _within_limits(getattr(sfn, name)))

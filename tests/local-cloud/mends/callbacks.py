"""Tasks that wait for a token (`.waitForTaskToken`), and time limits that are expressions.

AWS (Step Functions developer guide: "Wait for a Callback with Task Token"; API reference: SendTaskSuccess): the task asks
the service first, and fails if that fails, unless an answer to the token came before; then it waits until the token is
answered, for TimeoutSeconds from its beginning at most (States.Timeout), and HeartbeatSeconds from one sign of life to
the next (States.HeartbeatTimeout). Each attempt has a token of its own. A token is answered once: another answer, or one
to an attempt that is over, is TaskTimedOut; what is no token is InvalidToken; an output that is no JSON is InvalidOutput.
TimeoutSeconds and HeartbeatSeconds may be JSONata.

MiniStack ignores what a function that it asks says, an error as well as a throttle, knows no heartbeats, gives every
attempt the same token, takes several answers, waits on when the execution is stopped, and cannot add an expression to a
time.

Limits are in real seconds, whatever the wait scale.
"""

import json
import threading
import time

from ministack.core.responses import error_response_json, new_uuid
from ministack.services import stepfunctions as sfn

from . import execution

POLL_S = 0.02
# What an activity's token belongs to, which nothing here knows.
RUNNING = {"status": "RUNNING"}
# Tokens that were given out and are not waited for any more.
_spent: set[str] = set()


def _limits(execute_task):
    """Time limits that are expressions are evaluated when the state is entered."""

    def mended(state, raw_input, running, ctx):
        for name in ("TimeoutSeconds", "HeartbeatSeconds"):
            given = state.get(name)
            if isinstance(given, str) and given.startswith("{%"):
                seconds = sfn._evaluate_jsonata(given.removeprefix("{%").removesuffix("%}").strip(), raw_input, ctx)
                if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != int(seconds) or seconds < 1:
                    raise sfn._ExecutionError("States.QueryEvaluationError",
                                              f"The JSONata expression of {name} has to give a whole number of seconds, "
                                              f"at least 1, and gave {seconds!r}")
                state = {**state, name: int(seconds)}
        return execute_task(state, raw_input, running, ctx)

    return mended


def _fresh_token(apply_arguments):
    """Arguments are evaluated once for each attempt, and the token with them."""

    def mended(state, raw_input, ctx, *rest, **options):
        if ".waitForTaskToken" in state.get("Resource", ""):
            ctx["Task"] = {"Token": new_uuid()}
        return apply_arguments(state, raw_input, ctx, *rest, **options)

    return mended


def _wait_for_token(resource, arguments, token, state):
    answered = threading.Event()
    info = {"event": answered, "result": None, "error": None, "heartbeat": None, "execution": execution.current()}
    sfn._task_tokens[token] = info
    limit = state.get("TimeoutSeconds")
    deadline = time.monotonic() + limit if limit else None
    try:
        _ask(resource.replace(".waitForTaskToken", ""), arguments, limit, answered)
        _wait(info, deadline, limit, state.get("HeartbeatSeconds"))
    finally:
        sfn._task_tokens.pop(token, None)
        _spent.add(token)
    if info["error"]:
        raise sfn._ExecutionError(info["error"]["Error"], info["error"]["Cause"])
    return json.loads(info["result"])


def _ask(resource: str, arguments, limit: int | None, answered: threading.Event) -> None:
    try:
        if limit:
            sfn._invoke_resource_with_timeout(resource, arguments, limit)
        else:
            sfn._invoke_resource(resource, arguments)
    except sfn._ExecutionError:
        if not answered.is_set():
            raise


def _wait(info: dict, deadline: float | None, limit: int | None, heartbeat: int | None) -> None:
    sign, alive = info["heartbeat"], time.monotonic()
    while not info["event"].wait(POLL_S):
        execution.check_still_running()
        now = time.monotonic()
        if info["heartbeat"] != sign:
            sign, alive = info["heartbeat"], now
        if deadline and now > deadline:
            raise sfn._ExecutionError("States.Timeout", f"Task timed out after {limit} seconds")
        if heartbeat and now > alive + heartbeat:
            raise sfn._ExecutionError("States.HeartbeatTimeout", f"No heartbeat for {heartbeat} seconds")


def _once(send):
    """An answer, or a sign of life, counts while the token is waited for and has not been answered."""

    def mended(data):
        token = data.get("taskToken")
        info = sfn._task_tokens.get(token)
        if info is None and token not in _spent:
            return error_response_json("InvalidToken", "Invalid Token: 'Invalid token'", 400)
        if info is None or info["event"].is_set() or (info.get("execution") or RUNNING)["status"] != "RUNNING":
            return error_response_json("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400)
        if "output" in data:
            try:
                json.loads(data["output"])
            except ValueError as error:
                return error_response_json("InvalidOutput", f"Invalid Output: '{error}'", 400)
        return send(data)

    return mended


def apply() -> None:
    """Before `iam_of_state_machines` and `orders`, whose part in it comes through `_invoke_resource`."""
    sfn._execute_task = _limits(sfn._execute_task)
    sfn._apply_jsonata_arguments = _fresh_token(sfn._apply_jsonata_arguments)
    sfn._invoke_with_callback = _wait_for_token
    for name in ("success", "failure", "heartbeat"):
        setattr(sfn, f"_send_task_{name}", _once(getattr(sfn, f"_send_task_{name}")))

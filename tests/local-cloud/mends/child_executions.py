"""`states:startExecution.sync` and `.sync:2`: a child execution that is waited for.

MiniStack runs the child inside the parent's thread as if it were an express workflow: it emits no status events, lets
the child's error through under the child's own name, and leaves the child running when the parent is stopped.
"""

import json
import threading
import time

from ministack.services import stepfunctions as sfn

from . import execution

POLL_S = 0.02
_task = threading.local()


def _started(request: dict) -> str:
    """A name that is taken by a running execution with the same input means that one; by any other it is refused."""
    status, _, body = sfn._start_execution(request)
    answer = json.loads(body)
    if status >= 400:
        code = answer.get("__type", "AWSStepFunctionsException").rsplit("#", 1)[-1]
        if code == "ExecutionAlreadyExists":
            twin = sfn._executions.get(answer.get("message", "").partition("'")[2].rstrip("'"))
            if twin and twin["status"] == "RUNNING" and json.loads(twin["input"]) == json.loads(request["input"]):
                return twin["executionArn"]
        # Errors are named after the exceptions of the SDK for Java.
        code = code if code.endswith("Exception") else f"{code}Exception"
        raise sfn._ExecutionError(f"StepFunctions.{code}", answer.get("message", ""))
    return answer["executionArn"]


def _epoch_ms(stamp: str | None) -> int | None:
    return sfn._iso_to_epoch_ms(stamp)


def _description(child: dict, parse_output: bool) -> dict:
    """The child as DescribeExecution tells it, with the capitals and the times that the integration uses."""
    output = child["output"]
    if parse_output and output is not None and child["status"] == "SUCCEEDED":
        output = json.loads(output)
    told = {
        "ExecutionArn": child["executionArn"], "StateMachineArn": child["stateMachineArn"], "Name": child["name"],
        "Status": child["status"], "Input": child["input"], "InputDetails": {"Included": True},
        "OutputDetails": {"Included": True}, "StartDate": _epoch_ms(child["startDate"]),
        "StopDate": _epoch_ms(child["stopDate"]), "RedriveCount": 0,
    }
    if child["status"] == "SUCCEEDED":
        told["Output"] = output
    for key in ("Error", "Cause"):
        if child.get(key.lower()):
            told[key] = child[key.lower()]
    return told


def _run_child(resource: str, arguments: dict) -> dict:
    """Starts the child and waits. A child that does not succeed is States.TaskFailed, and Cause describes it.

    When the parent is stopped or runs out of time, AWS stops the child too.
    """
    limit = getattr(_task, "seconds", None)
    deadline = time.monotonic() + limit if limit else None
    arn = _started(sfn._nested_start_execution_request(arguments))
    while (child := sfn._executions[arn])["status"] == "RUNNING":
        try:
            execution.check_still_running()
        except execution.Ended:
            sfn._stop_execution({"executionArn": arn, "cause": "The execution that waited for this one has ended."})
            raise
        if deadline and time.monotonic() > deadline:
            sfn._stop_execution({"executionArn": arn, "cause": "The task that waited for this execution timed out."})
            raise sfn._ExecutionError("States.Timeout", f"Task timed out after {limit} seconds")
        time.sleep(POLL_S)
    if child["status"] != "SUCCEEDED":
        raise sfn._ExecutionError("States.TaskFailed", json.dumps(_description(child, False)))
    return _description(child, resource.endswith(".sync:2"))


def _time_limit_for_child(invoke_with_timeout):
    """The limit of such a Task is kept here, so that the child can be stopped when it passes."""

    def mended(resource, arguments, seconds):
        if not resource.startswith("arn:aws:states:::states:startExecution.sync"):
            return invoke_with_timeout(resource, arguments, seconds)
        _task.seconds = seconds
        try:
            return sfn._invoke_resource(resource, arguments)
        finally:
            _task.seconds = None

    return mended


def apply() -> None:
    sfn._invoke_nested_start_execution_sync = _run_child
    sfn._invoke_resource_with_timeout = _time_limit_for_child(sfn._invoke_resource_with_timeout)

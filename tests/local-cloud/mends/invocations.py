"""Which state of which execution a call to AWS belongs to, through the function that makes it.

A function's SDK repeats the trace id of its invocation in each of its calls (X-Amzn-Trace-Id, as on AWS). Here each
invocation gets an id of its own, so a call leads back to the invocation, to its process, and to the task that asked
for it. MiniStack makes the ids and forgets them.

The id also tells a proxy, which knows nothing of this, whose call it is: its last part begins with `mark` of the
execution's name, and of the parent's name for a child execution.
"""

import contextvars
import dataclasses
import hashlib
import secrets
import threading
import time

from ministack.core import lambda_runtime
from ministack.services import lambda_svc
from ministack.services import stepfunctions as sfn


@dataclasses.dataclass
class Task:
    """An attempt of a Task state: the `attempt`-th time that the execution asked for it, counted from 1."""

    execution: str
    machine: str
    state: str
    attempt: int


@dataclasses.dataclass
class Invocation:
    """One invocation of a function: the task that asked for it, if a state machine did, and its process."""

    function: str
    task: Task | None
    process: object = None
    calls: int = 0
    kill_at_call: int | None = None


_task: contextvars.ContextVar = contextvars.ContextVar("task", default=None)
_attempt: contextvars.ContextVar = contextvars.ContextVar("attempt", default=None)
# The invocation that makes the request being served, and the how-manieth of its calls that is.
calling: contextvars.ContextVar = contextvars.ContextVar("calling", default=None)
# Child execution's ARN -> name of the execution that started it.
parents: dict[str, str] = {}
_lock = threading.Lock()
_invocations: dict[str, Invocation] = {}
_attempts: dict[tuple[str, str], int] = {}


def of_trace(header: str) -> Invocation | None:
    """The invocation that a call with this X-Amzn-Trace-Id belongs to, while it runs."""
    return _invocations.get(_root(header))


def mark(execution: str) -> str:
    """Twelve hexadecimal digits that stand for an execution's name."""
    return hashlib.sha256(execution.encode()).hexdigest()[:12]


def _root(header: str) -> str:
    return next((part[5:] for part in header.split(";") if part.startswith("Root=")), header)


def _traced(_trace_id):
    """Every invocation is traced, sampled or not: Lambda always sets the header."""

    def mended(config, inbound_trace_header=None):
        task = _attempt.get()
        name = parents.get(task.execution, task.execution.rsplit(":", 1)[-1]) if task else ""
        root = f"1-{int(time.time()):08x}-{mark(name)}{secrets.token_hex(6)}"
        with _lock:
            _invocations[root] = Invocation(config.get("FunctionName", ""), task)
        return f"Root={root};Parent={secrets.token_hex(8)};Sampled=1"

    return mended


def _with_process(invoke):
    def mended(worker, event, request_id, *, trace_id=None, **options):
        invocation = of_trace(trace_id or "")
        if invocation is None:
            return invoke(worker, event, request_id, trace_id=trace_id, **options)
        # The process may be started only by `invoke`, so it is looked up when it is needed.
        invocation.process = lambda: worker._proc
        try:
            return invoke(worker, event, request_id, trace_id=trace_id, **options)
        finally:
            with _lock:
                _invocations.pop(_root(trace_id), None)

    return mended


def _task_of_state(execute_task):
    def mended(state, raw_input, execution, ctx):
        name = ctx["State"]["Name"]
        machine = ctx.get("StateMachine", {}).get("Name") or execution["stateMachineArn"].rsplit(":", 1)[-1]
        # The attempt is filled in by `begin_attempt`, once for every try.
        token = _task.set(Task(execution["executionArn"], machine, name, 0))
        try:
            return execute_task(state, raw_input, execution, ctx)
        finally:
            _task.reset(token)

    return mended


def begin_attempt() -> Task | None:
    """Counts another try of the current task; attempts of the iterations of a Map count together."""
    task = _task.get()
    if task is None:
        return None
    with _lock:
        key = (task.execution, task.state)
        _attempts[key] = _attempts.get(key, 0) + 1
        attempt = dataclasses.replace(task, attempt=_attempts[key])
    _attempt.set(attempt)
    return attempt


def apply() -> None:
    lambda_svc._xray_trace_id_for_invocation = _traced(lambda_svc._xray_trace_id_for_invocation)
    lambda_runtime.ProvidedWorker.invoke = _with_process(lambda_runtime.ProvidedWorker.invoke)
    sfn._execute_task = _task_of_state(sfn._execute_task)

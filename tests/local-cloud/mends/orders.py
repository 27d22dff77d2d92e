"""Orders of tests to Step Functions: "in execution X, state S, at the n-th attempt: …", over HTTP, as rds-local's.

    POST   /_lifeboat/orders   {"execution": NAME, "state": S, "attempt": 1, "count": 1, "effect": …}
    GET    /_lifeboat/orders   every order, with `carried`: how often it was carried out, and `finished`: how many of those
                               attempts are over, also where the execution ended before
    DELETE /_lifeboat/orders[?execution=NAME]

`attempt` is counted from 1 over the whole execution, `count` is how many attempts in a row (0: all from there on).
Effects:

    {"raise": {"error": E, "cause": C}}   the task fails with E; the function is not invoked
    {"lose": {"error": E, "cause": C}}    the function is invoked, and whatever its answer is, the task fails with E
    {"twice": true}                       the function is invoked twice with the same payload; the second answer counts
    {"killAtCall": n}                     SIGKILL for its process once AWS carried out its n-th call, before the answer
    {"stop": true}                        the execution is stopped while the function works on, as StopExecution does
    {"secondsLeft": n}                    the function is told that its deadline is in n seconds; it is not enforced
    {"first": {"url": U, "body": B}}      POST B to U, then go on; "{a.b}" in B is the task's argument a.b

An order for a child execution names the child's own, or `"execution": NAME, "child": true` for what X starts. A child of
a distributed Map counts as the execution of the Map, and has attempts of its own.
"""

import asyncio
import contextvars
import json
import os
import signal
import threading
import time
import urllib.parse
import urllib.request

from ministack import app
from ministack.core import lambda_runtime
from ministack.services import stepfunctions as sfn

from . import calls, execution, invocations, lambda_processes

_lock = threading.Lock()
_orders: list[dict] = []
_effects: contextvars.ContextVar = contextvars.ContextVar("effects", default=None)


def _add(order: dict) -> dict:
    known = {"raise", "lose", "stop", "twice", "killAtCall", "secondsLeft", "first"}
    effect = order.get("effect") or {}
    if not isinstance(order.get("execution"), str) or not isinstance(order.get("state"), str):
        raise ValueError("an order names `execution` and `state`")
    if len(effect) != 1 or not set(effect) <= known:
        raise ValueError(f"`effect` is one of {', '.join(sorted(known))}")
    order = {"attempt": 1, "count": 1, "child": False, **order, "carried": 0, "finished": 0}
    with _lock:
        _orders.append(order)
    return order


def _for(task: invocations.Task) -> list[dict]:
    """The orders that hold for this attempt, counted as carried out."""
    running = execution.current() or {}
    name = running.get("name", "")
    parent = invocations.parents.get(task.execution, "")
    found = []
    with _lock:
        for order in _orders:
            at, count = order["attempt"], order["count"]
            mine = order["execution"] == (parent if order["child"] else name) and order["state"] == task.state
            if mine and task.attempt >= at and (count == 0 or task.attempt < at + count):
                order["carried"] += 1
                found.append(order)
    return found


def _knows_its_parent(start_execution):
    def mended(request):
        answer = start_execution(request)
        running = execution.current()
        if running is not None and answer[0] < 400:
            invocations.parents[json.loads(answer[2])["executionArn"]] = running["name"]
        return answer

    return mended


def _fail(what: dict):
    return sfn._ExecutionError(what["error"], what.get("cause", "ordered by a test"))


def _ordered(invoke):
    """What a task does, with the orders for this attempt carried out around it."""

    def mended(resource, arguments):
        task = invocations.begin_attempt()
        orders = _for(task) if task else []
        try:
            return carried_out(resource, arguments, task, orders)
        finally:
            for order in orders:
                order["finished"] += 1

    def carried_out(resource, arguments, task, orders):
        merged = {name: value for order in orders for name, value in order["effect"].items()}
        if "first" in merged:
            _post(merged["first"], arguments)
        if "raise" in merged:
            raise _fail(merged["raise"])
        if "stop" in merged:
            # A child of a distributed Map counts as its parent here, too.
            running = execution.current() or {"executionArn": task.execution}
            sfn._stop_execution({"executionArn": running["executionArn"], "cause": "ordered by a test"})
        token = _effects.set(merged)
        try:
            answer = invoke(resource, arguments)
            if merged.get("twice"):
                answer = invoke(resource, arguments)
        except sfn._ExecutionError:
            if "lose" in merged:
                raise _fail(merged["lose"]) from None
            raise
        finally:
            _effects.reset(token)
        execution.check_still_running()
        if "lose" in merged:
            raise _fail(merged["lose"])
        return answer

    return mended


def _post(what: dict, arguments) -> None:
    def filled(value):
        if isinstance(value, dict):
            return {name: filled(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
            found = arguments
            for name in value[1:-1].split("."):
                found = found[name]
            return found
        return value

    request = urllib.request.Request(what["url"], data=json.dumps(filled(what["body"])).encode(), method="POST",
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _in_the_function(invoke):
    """Orders that concern the invocation itself are handed to where its process and its calls are known."""

    def mended(worker, event, request_id, *, trace_id=None, **options):
        effects = _effects.get() or {}
        invocation = invocations.of_trace(trace_id or "")
        if invocation is not None:
            invocation.kill_at_call = effects.get("killAtCall")
        worker.seconds_left = effects.get("secondsLeft")
        return invoke(worker, event, request_id, trace_id=trace_id, **options)

    return mended


def _tells_the_deadline(spawn):
    """The runtime gets its event from a queue; the deadline is the third thing in an item."""

    def mended(worker, *arguments, **options):
        spawn(worker, *arguments, **options)
        put = worker._pending.put

        def adjusted(item):
            seconds = getattr(worker, "seconds_left", None)
            if isinstance(item, tuple) and seconds is not None:
                item = (*item[:2], int((time.time() + seconds) * 1000), *item[3:])
            put(item)

        worker._pending.put = adjusted

    return mended


async def _as_signed(scope, receive, host: str):
    """A request as the function signed it: for the host that it called, and with its length. A proxy on the way puts
    another host, and passes a body on in chunks."""
    headers = [(name, host.encode() if name == b"host" else value) for name, value in scope["headers"]]
    if any(name == b"content-length" for name, _ in headers) or not any(
            name == b"transfer-encoding" for name, _ in headers):
        return {**scope, "headers": headers}, receive
    body = await _whole(receive)
    headers = [(name, value) for name, value in headers if name != b"transfer-encoding"]
    headers.append((b"content-length", str(len(body)).encode()))
    message = {"type": "http.request", "body": body, "more_body": False}

    async def at_once():
        nonlocal message
        given, message = message, {"type": "http.disconnect"}
        return given

    return {**scope, "headers": headers}, at_once


async def _whole(receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


class _Application:
    """MiniStack's ASGI application behind the orders: /_lifeboat/ is answered here, calls of functions are counted."""

    def __init__(self, inner):
        self._inner = inner

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._inner(scope, receive, send)
        if scope["path"] in ("/_lifeboat/orders", "/_lifeboat/calls", "/_lifeboat/endpoint"):
            return await self._control(scope, receive, send)
        trace = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-amzn-trace-id"), "")
        invocation = invocations.of_trace(trace) if trace else None
        if invocation is None:
            return await self._inner(scope, receive, send)
        if lambda_processes.endpoint():
            scope, receive = await _as_signed(scope, receive, lambda_processes.endpoint().split("://")[1])
        invocation.calls += 1
        invocations.calling.set((invocation, invocation.calls))
        if invocation.kill_at_call != invocation.calls:
            return await self._inner(scope, receive, send)

        async def dies_before_the_answer(message):
            if message["type"] == "http.response.start":
                process = invocation.process()
                if process is not None:
                    os.kill(process.pid, signal.SIGKILL)
            await send(message)

        return await self._inner(scope, receive, dies_before_the_answer)

    async def _control(self, scope, receive, send):
        body = await _whole(receive)
        query = urllib.parse.parse_qs(scope["query_string"].decode())
        if scope["path"] == "/_lifeboat/calls":
            status, answer = 200, calls.of_execution(query["execution"][0]) if "execution" in query else calls.seen()
            if scope["method"] == "DELETE":
                calls.forget()
        elif scope["path"] == "/_lifeboat/endpoint":
            # Ending processes waits for them.
            await asyncio.to_thread(lambda_processes.send_functions_to, json.loads(body)["url"])
            status, answer = 200, {"url": lambda_processes.endpoint()}
        else:
            status, answer = self._answer(scope["method"], query, body)
        text = json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]})
        await send({"type": "http.response.body", "body": text})

    @staticmethod
    def _answer(method: str, query: dict, body: bytes) -> tuple[int, object]:
        if method == "POST":
            try:
                return 200, _add(json.loads(body))
            except ValueError as error:
                return 400, {"message": str(error)}
        with _lock:
            chosen = [order for order in _orders if query.get("execution", [order["execution"]])[0] == order["execution"]]
            if method == "DELETE":
                _orders[:] = [order for order in _orders if order not in chosen]
            return 200, chosen


def apply() -> None:
    sfn._invoke_resource = _ordered(sfn._invoke_resource)
    sfn._start_execution = _knows_its_parent(sfn._start_execution)
    lambda_runtime.ProvidedWorker.invoke = _in_the_function(lambda_runtime.ProvidedWorker.invoke)
    lambda_runtime.ProvidedWorker._spawn = _tells_the_deadline(lambda_runtime.ProvidedWorker._spawn)
    app.app = _Application(app.app)

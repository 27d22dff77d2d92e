"""Which permissions were used: every decision about a role's call, by role, action and resource.

    GET    /_lifeboat/calls   [{"role", "action", "resource", "region", "allowed", "times"}]
    GET    /_lifeboat/calls?execution=ARN   what functions called for it: [{"state", "attempt", "call", "actions"}]
    DELETE /_lifeboat/calls   forgets them

Answered by `orders`. The account's root is not in it: nothing is decided about it.
"""

import contextvars
import threading

from ministack.core import iam_evaluator

from . import invocations

_lock = threading.Lock()
_seen: dict[tuple, int] = {}
# Execution -> (state, attempt, number of the call) -> its actions.
_by_execution: dict[str, dict[tuple[str, int, int], list[str]]] = {}
# Who asks, in the decision that is being made.
_principal: contextvars.ContextVar = contextvars.ContextVar("principal", default=None)


def seen() -> list[dict]:
    """What was decided so far, sorted."""
    with _lock:
        return [{"role": role, "action": action, "resource": resource, "region": region, "allowed": allowed,
                 "times": times}
                for (role, action, resource, region, allowed), times in sorted(_seen.items())]


def of_execution(execution: str) -> list[dict]:
    """What the functions of an execution and of its children called, in order."""
    name = execution.rsplit(":", 1)[-1]
    with _lock:
        mine = [execution, *(child for child, parent in list(invocations.parents.items()) if parent == name)]
        return [{"state": state, "attempt": attempt, "call": call, "actions": actions}
                for each in mine
                for (state, attempt, call), actions in sorted(_by_execution.get(each, {}).items())]


def forget() -> None:
    with _lock:
        _seen.clear()
        _by_execution.clear()


def _told(evaluate):
    """Policies are looked at for the role, and again for the resource; the first time says who asks."""

    def mended(ctx, *policies):
        if _principal.get() == "":
            _principal.set(ctx.principal_arn)
        return evaluate(ctx, *policies)

    return mended


def _recorded(enforce):
    def mended(access_key_id, iam_action, service, region, resource_arn="*", service_context=None):
        token = _principal.set("")
        try:
            denied = enforce(access_key_id, iam_action, service, region, resource_arn=resource_arn,
                             service_context=service_context)
            principal = _principal.get()
        finally:
            _principal.reset(token)
        # arn:aws:sts::…:assumed-role/<role>/<session>
        if ":assumed-role/" in principal:
            _record(principal.split(":assumed-role/", 1)[1].split("/")[0], iam_action, resource_arn, region,
                    denied is None)
        return denied

    return mended


def _record(role: str, action: str, resource: str, region: str, allowed: bool) -> None:
    calling = invocations.calling.get()
    with _lock:
        key = (role, action, resource, region, allowed)
        _seen[key] = _seen.get(key, 0) + 1
        if calling and calling[0].task:
            task = calling[0].task
            calls = _by_execution.setdefault(task.execution, {})
            calls.setdefault((task.state, task.attempt, calling[1]), []).append(action)


def apply() -> None:
    """Before `iam_of_rds`, which asks once for each resource of a call."""
    iam_evaluator.evaluate = _told(iam_evaluator.evaluate)
    iam_evaluator.enforce = _recorded(iam_evaluator.enforce)

"""Which permissions were used: every decision on a role's policies, by role, action and resource.

    GET    /_lifeboat/calls   [{"role", "action", "resource", "region", "allowed", "times"}]
    GET    /_lifeboat/calls?execution=ARN   what functions called for it: [{"state", "attempt", "call", "actions"}]
    DELETE /_lifeboat/calls   forgets them

Answered by `orders`. The account's root is not in it: nothing is decided about it.
"""

import threading

from ministack.core import iam_evaluator

from . import invocations

_lock = threading.Lock()
_seen: dict[tuple, int] = {}
# Execution -> (state, attempt, number of the call) -> its actions.
_by_execution: dict[str, dict[tuple[str, int, int], list[str]]] = {}


def seen() -> list[dict]:
    """What was decided so far, sorted."""
    with _lock:
        return [{"role": role, "action": action, "resource": resource, "region": region, "allowed": allowed,
                 "times": times}
                for (role, action, resource, region, allowed), times in sorted(_seen.items())]


def of_execution(execution: str) -> list[dict]:
    """What the functions of an execution called, in order."""
    with _lock:
        return [{"state": state, "attempt": attempt, "call": call, "actions": actions}
                for (state, attempt, call), actions in sorted(_by_execution.get(execution, {}).items())]


def forget() -> None:
    with _lock:
        _seen.clear()
        _by_execution.clear()


def _recorded(evaluate):
    def mended(ctx, *policies):
        result = evaluate(ctx, *policies)
        # arn:aws:sts::…:assumed-role/<role>/<session>
        if ":assumed-role/" in ctx.principal_arn:
            role = ctx.principal_arn.split(":assumed-role/", 1)[1].split("/")[0]
            key = (role, ctx.action, ctx.resource_arn, ctx.region, result.decision == "Allow")
            with _lock:
                _seen[key] = _seen.get(key, 0) + 1
                calling = invocations.calling.get()
                if calling and calling[0].task:
                    task = calling[0].task
                    calls = _by_execution.setdefault(task.execution, {})
                    calls.setdefault((task.state, task.attempt, calling[1]), []).append(ctx.action)
        return result

    return mended


def apply() -> None:
    iam_evaluator.evaluate = _recorded(iam_evaluator.evaluate)

"""What MiniStack 1.5.33 does otherwise than AWS, put right where Lifeboat depends on it.

Each module is one subject and has an `apply()`; each function in it says what AWS does. They replace functions of
MiniStack by name, so they hold for the pinned version only: `apply_all` refuses any other.
"""

import importlib.metadata

from . import (
    callbacks,
    calls,
    child_executions,
    conditions,
    execution,
    iam_of_compute,
    iam_of_rds,
    iam_of_state_machines,
    iam_of_tags,
    instances,
    invocations,
    jsonata,
    lambda_processes,
    orders,
    rds,
    scaling_groups,
    target_groups,
    throttling,
    transport,
)

MINISTACK = "1.5.33"


def apply_all(rds_endpoint: str | None) -> None:
    """Mends the MiniStack of this process. Without `rds_endpoint` its own `rds` service stays."""
    found = importlib.metadata.version("ministack")
    if found != MINISTACK:
        raise RuntimeError(f"the mends are written for MiniStack {MINISTACK}, and {found} is installed")
    calls.apply()
    conditions.apply()
    lambda_processes.apply()
    invocations.apply()
    execution.apply()
    jsonata.apply()
    child_executions.apply()
    callbacks.apply()
    throttling.apply()
    iam_of_state_machines.apply()
    iam_of_rds.apply()
    iam_of_compute.apply()
    iam_of_tags.apply(rds_endpoint)
    transport.apply()
    instances.apply()
    scaling_groups.apply()
    target_groups.apply()
    if rds_endpoint:
        rds.apply(rds_endpoint)
    orders.apply()

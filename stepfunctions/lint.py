"""Lints every state machine with statelint. `python stepfunctions/lint.py`, in an environment that has it.

statelint 3.1 does not know that a Wait's `Seconds`, a Task's `TimeoutSeconds` and a Map's `MaxConcurrency` may be JSONata
expressions (Amazon States Language, "Wait state", "Task state"; Step Functions Developer Guide, "Map state"), nor a
distributed Map's `Label`, the `InputType` of its reader and the `WriterConfig` of its writer ("Distributed mode",
"ItemReader", "ResultWriter"): those complaints are left out here, and nothing else.
"""

import re
import sys
from pathlib import Path

from statelint.config import Config
from statelint.linter import Linter

MISTAKEN = re.compile(
    r'\.(Timeout)?Seconds is "\{% .* %\}" but should be an Integer$'
    r'|\.MaxConcurrency is "\{% .* %\}" but should be numeric$'
    r'|^Field "(Label" not allowed in State Machine\.States\.\w+'
    r'|InputType" not allowed in State Machine\.States\.\w+\.ItemReader\.ReaderConfig'
    r'|WriterConfig" not allowed in State Machine\.States\.\w+\.ResultWriter)$')


def main() -> int:
    machines = sorted(Path(__file__).parent.glob("*.asl.json"))
    faults = [
        f"{machine.name}: {problem}"
        for machine in machines
        for problem in Linter.validate(str(machine), Config())
        if not MISTAKEN.search(str(problem))
    ]
    print(*faults, f"{len(machines)} state machines, {len(faults)} faults", sep="\n")
    return 1 if faults or not machines else 0


if __name__ == "__main__":
    sys.exit(main())

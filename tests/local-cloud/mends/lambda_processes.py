"""Lambda functions run as child processes of MiniStack; here they are made to end with it, however it ends.

On AWS nothing of a function outlives its service. On one machine a killed MiniStack would leave its warm functions
behind, each with an open port.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from ministack.core import lambda_runtime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lifeline import LIFELINE  # noqa: E402


class _Subprocess:
    """The `subprocess` module as `lambda_runtime` sees it: the same, except that children are tied to us."""

    def __getattr__(self, name):
        return getattr(subprocess, name)

    @staticmethod
    def Popen(command, **options):  # noqa: N802  (the name it replaces)
        return LIFELINE.start(command, "KILL", **options)


def apply() -> None:
    """Starts every function through the lifeline. The children get no signal of their own from a terminal."""
    if not shutil.which("setpriv"):
        raise RuntimeError("setpriv (Debian package util-linux) is needed to tie functions to the cloud's life")
    lambda_runtime.subprocess = _Subprocess()

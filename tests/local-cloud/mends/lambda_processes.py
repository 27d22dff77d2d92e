"""Lambda functions run as child processes of MiniStack; here they are made to end with it, however it ends.

On AWS nothing of a function outlives its service. On one machine a killed MiniStack would leave its warm functions
behind, each with an open port.

Where functions find AWS can be changed while they run (a proxy that makes trouble), over HTTP:

    POST /_lifeboat/endpoint   {"url": "http://127.0.0.1:9999"}; null for MiniStack itself
"""

import shutil
import subprocess
import sys
from pathlib import Path

from ministack.core import lambda_runtime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lifeline import LIFELINE  # noqa: E402


_endpoint: str | None = None


def endpoint() -> str | None:
    """Where functions find AWS, if that is not MiniStack itself."""
    return _endpoint


def send_functions_to(url: str | None) -> None:
    """Functions that are started from now on call AWS there; those that wait for an event are ended."""
    global _endpoint
    _endpoint = url
    with lambda_runtime._lock:
        idle = [worker for pool in lambda_runtime._workers.values() for worker in pool if not worker.in_use]
        for pool in lambda_runtime._workers.values():
            pool[:] = [worker for worker in pool if worker.in_use]
    lambda_runtime.kill_workers(idle)


class _Subprocess:
    """The `subprocess` module as `lambda_runtime` sees it: the same, except that children are tied to us."""

    def __getattr__(self, name):
        return getattr(subprocess, name)

    @staticmethod
    def Popen(command, **options):  # noqa: N802  (the name it replaces)
        if _endpoint and options.get("env"):
            options["env"] = {**options["env"], "AWS_ENDPOINT_URL": _endpoint}
        return LIFELINE.start(command, "KILL", **options)


def apply() -> None:
    """Starts every function through the lifeline. The children get no signal of their own from a terminal."""
    if not shutil.which("setpriv"):
        raise RuntimeError("setpriv (Debian package util-linux) is needed to tie functions to the cloud's life")
    lambda_runtime.subprocess = _Subprocess()

"""Deployed functions in the Lambda runtime interface emulator that the SAM CLI ships: what `sam local invoke` runs.

The binary is the one that was uploaded, the variables are the deployed function's own, the credentials are its
role's. The emulator itself is not Lambda: it tells every function that it is in account 012345678912 of us-east-1.
"""

import contextlib
import io
import json
import socket
import subprocess
import time
import urllib.request
import zipfile
from pathlib import Path

from cloud import free_port, tail
from deployment import TOOLS, architecture
from lifeline import LIFELINE, stop

START_WITHIN_S = 60
STOP_WITHIN_S = 5


class EmulatorError(Exception):
    """The emulator cannot be found or does not start; the text says why and what to do."""


def emulator_binary() -> Path:
    """The emulator for this machine, beside the SAM CLI that the other tests run."""
    name = f"aws-lambda-rie-{architecture()}"
    environment = (TOOLS / "sam").resolve().parent.parent
    found = sorted(environment.glob(f"lib/python*/site-packages/samcli/local/rapid/{name}"))
    if not found:
        raise EmulatorError(f"the SAM CLI in {environment} has no {name}. `make setup` installs the pinned one")
    return found[-1]


class Emulator:
    """One function in its emulator, until the `with` block or the process ends."""

    def __init__(self, cloud, function: str, directory: Path):
        self._cloud, self._function, self._directory = cloud, function, directory
        self._log = directory / "emulator.log"
        self._process: subprocess.Popen | None = None
        self._url = ""

    def __enter__(self) -> "Emulator":
        functions = self._cloud.client("lambda")
        deployed = functions.get_function(FunctionName=self._function)
        bootstrap = self._unpack(deployed["Code"]["Location"])
        port, api = free_port(), free_port()
        self._url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        with self._log.open("wb") as log:
            # On SIGTERM the emulator ends its function, then itself.
            self._process = LIFELINE.start(
                [emulator_binary(), "--runtime-interface-emulator-address", f"127.0.0.1:{port}",
                 "--runtime-api-address", f"127.0.0.1:{api}", bootstrap],
                "TERM", env=self._environment(deployed["Configuration"]), cwd=self._directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._await(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._process:
            stop(self._process, STOP_WITHIN_S)

    def invoke(self, payload):
        """What the function answers, decoded. An error is an object with `errorType` and `errorMessage`."""
        request = urllib.request.Request(self._url, data=json.dumps(payload).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            raise EmulatorError(f"{self._function} answered {text!r}:\n{tail(self._log)}") from None

    def _unpack(self, location: str) -> Path:
        with urllib.request.urlopen(location, timeout=60) as archive, \
                zipfile.ZipFile(io.BytesIO(archive.read())) as package:
            package.extractall(self._directory / "code")
        bootstrap = self._directory / "code" / "bootstrap"
        bootstrap.chmod(0o755)
        return bootstrap

    def _environment(self, configuration: dict) -> dict[str, str]:
        session = self._cloud.client("sts").assume_role(
            RoleArn=configuration["Role"], RoleSessionName="emulator")["Credentials"]
        return {
            **configuration["Environment"]["Variables"],
            "AWS_ENDPOINT_URL": self._cloud.endpoint, "AWS_REGION": self._cloud.region,
            "AWS_DEFAULT_REGION": self._cloud.region, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": session["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
            "AWS_SESSION_TOKEN": session["SessionToken"], "AWS_LAMBDA_FUNCTION_NAME": self._function,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(configuration["Timeout"]),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
        }

    def _await(self, port: int) -> None:
        """Until the emulator listens; it starts the function at its first invocation."""
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EmulatorError(f"the emulator of {self._function} does not listen:\n{tail(self._log)}")
            time.sleep(0.02)

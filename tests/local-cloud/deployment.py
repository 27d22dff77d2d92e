"""`sam build` and `sam deploy` of a template into a local cloud, the way a user deploys to AWS.

Does not decide what the template's parameters are, only Architecture: the machine's own, because the functions run
here as processes.
"""

import contextlib
import fcntl
import json
import os
import platform
import signal
import subprocess
from pathlib import Path

from lifeline import LIFELINE

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / ".venv" / "bin"
BUCKET = "lifeboat-artifacts"
# Whole-program optimisation is for what goes to AWS. Here it would only make every build minutes longer.
QUICK_BUILD = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
               "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"}
ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}


class DeploymentError(Exception):
    """sam failed; the text is what it printed."""


def architecture() -> str:
    """This machine's, in the words of Lambda."""
    return ARCHITECTURE[platform.machine()]


def overrides(parameters: dict[str, str]) -> list[str]:
    """The option that sets template parameters; values may hold spaces and commas."""
    if not parameters:
        return []
    return ["--parameter-overrides", *(f"ParameterKey={name},ParameterValue={json.dumps(str(value))}"
                                       for name, value in parameters.items())]


def sam(arguments: list, environment: dict[str, str]) -> None:
    """Runs sam quietly; its output is shown only when it fails. When we are interrupted, its compilers are too."""
    process = LIFELINE.start([TOOLS / "sam", *arguments], "TERM", cwd=ROOT, env=environment, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate()
    except BaseException:
        # Its process group is its own: cargo and rustc are in it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        raise DeploymentError(f"sam {arguments[0]} ended with {process.returncode}:\n{output}")


def build(template: Path, parameters: dict[str, str], to: Path) -> Path:
    """Builds the functions for this machine: as for AWS, but for the optimiser's last minutes. Returns the template
    with their places. `make build` makes them exactly as for AWS.
    """
    environment = {**os.environ, **QUICK_BUILD, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"}
    with one_at_a_time():
        sam(["build", "--template-file", template, "--build-dir", to, "--config-env", "local",
             *overrides({"Architecture": architecture(), **parameters})], environment)
    return to / "template.yaml"


@contextlib.contextmanager
def one_at_a_time():
    """Builds of one checkout write to the same places of cargo-lambda and SAM. The lock goes with its process."""
    place = ROOT / ".aws-sam"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def deploy(cloud, template: Path, parameters: dict[str, str], stack: str, say) -> dict[str, str]:
    parameters = {"Architecture": architecture(), **parameters}
    say("building the functions (sam build)")
    # Each cloud's own. Not .aws-sam/build, where a user's build for AWS may be.
    built = build(template, parameters, cloud.directory / "build" / stack)
    say("deploying (sam deploy)")
    bucket = f"{BUCKET}-{cloud.region}"
    # S3's oldest Region is named by not naming any.
    place = {} if cloud.region == "us-east-1" else {
        "CreateBucketConfiguration": {"LocationConstraint": cloud.region}}
    cloud.client("s3").create_bucket(Bucket=bucket, **place)
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                   **cloud.environment(), "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.3"}
    sam(["deploy", "--template-file", built, "--stack-name", stack, "--s3-bucket", bucket, "--region", cloud.region,
         "--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND", "--config-env", "local",
         "--no-confirm-changeset", "--no-fail-on-empty-changeset", *overrides(parameters)], environment)
    formation = cloud.client("cloudformation")
    waiter = cloud.client("lambda").get_waiter("function_active_v2")
    for page in formation.get_paginator("list_stack_resources").paginate(StackName=stack):
        for resource in page["StackResourceSummaries"]:
            if resource["ResourceType"] == "AWS::Lambda::Function":
                waiter.wait(FunctionName=resource["PhysicalResourceId"], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    [described] = formation.describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}

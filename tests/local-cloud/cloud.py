"""A cloud on this machine: MiniStack (mended) and rds-local, on free ports of 127.0.0.1, without Docker or an account.

    cloud.py up       start it and leave it running
    cloud.py status   what runs, where, since when, and what a log says when something does not
    cloud.py env      shell lines that point the AWS CLI and SDKs at it:  eval "$(cloud.py env)"
    cloud.py deploy   build template.yaml, deploy it and print the stack's outputs as JSON
    cloud.py down     stop it

In Python, `with LocalCloud() as cloud:` starts one that ends with the block, and with the process however it ends.
All it knows is lost when it stops, except the logs. State and logs are in `.local-cloud/` (option --dir).
"""

import argparse
import contextlib
import copy
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import botocore.config

sys.path.insert(0, str(Path(__file__).resolve().parent))

import deployment  # noqa: E402
from lifeline import LIFELINE, stop  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DIRECTORY = ROOT / ".local-cloud"
HOME_REGION = "us-east-1"
TARGET_REGIONS = ("us-west-2", "eu-west-1")
ACCOUNT = "000000000000"
START_WITHIN_S = 60
STOP_WITHIN_S = 15
# Waits of state machines pass this much faster than their definitions say.
WAIT_SCALE = 0.05
# The keys of MiniStack's root user; every other key is a role's or unknown.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# What the processes may see of the caller's environment. AWS variables of a real account are not among it.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "RUST_BACKTRACE")


class CloudError(Exception):
    """The cloud cannot be started or found; the text says why and what to do."""


def cargo_target() -> Path:
    """The target directory that the Makefile chose; cargo's default without it."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def postgresql_roots() -> list[Path]:
    """One install root for each major version of PostgreSQL that `make setup` installed."""
    cache = Path(os.environ.get("LIFEBOAT_CACHE") or Path.home() / ".cache" / "lifeboat")
    return sorted((cache / "postgresql").glob("[0-9]*"))


class LocalCloud:
    """One cloud in one directory.

    `rds` is "rds-local", or the URL of another RDS API, or None for MiniStack's own. `auth` enforces IAM on functions
    and state machines. `detached` leaves the processes running when this one ends; otherwise they end with it.
    """

    def __init__(self, directory: Path | str = DIRECTORY, *, rds: str | None = "rds-local", auth: bool = True,
                 wait_scale: float = WAIT_SCALE, status_ms: int = 300, detached: bool = False):
        self.directory = Path(directory).resolve()
        self.region, self.account = HOME_REGION, ACCOUNT
        self._rds, self._auth, self._wait_scale, self._status_ms = rds, auth, wait_scale, status_ms
        self._detached = detached
        self._children: dict[str, subprocess.Popen] = {}
        self._clients: dict[tuple[str, str], object] = {}
        self._lock = threading.Lock()
        self.endpoint: str | None = None
        self.rds_endpoint: str | None = None
        self.rds_ca_file: str | None = None

    @classmethod
    def running(cls, directory: Path | str = DIRECTORY) -> "LocalCloud":
        """The cloud that `up` left running in `directory`. Leaving a `with` block does not stop it."""
        cloud = cls(directory, detached=True)
        found = cloud._read()
        if not found or not all(alive(**process) for process in found["processes"].values()):
            raise CloudError(f"no cloud is running in {cloud.directory}. `make cloud-up` starts one")
        cloud.endpoint, cloud.rds_endpoint, cloud.rds_ca_file = (
            found[key] for key in ("endpoint", "rdsEndpoint", "rdsCaFile"))
        return cloud

    # Life

    def __enter__(self) -> "LocalCloud":
        return self if self.endpoint else self.start()

    def __exit__(self, *_) -> None:
        if not self._detached:
            self.stop()

    def start(self) -> "LocalCloud":
        """Starts both processes and waits until they answer. Whatever goes wrong, nothing stays running."""
        found = self._read()
        if found and any(alive(**process) for process in found["processes"].values()):
            raise CloudError(f"a cloud is running in {self.directory} already ({found['endpoint']}); "
                             f"`cloud.py down` stops it, --dir starts another one elsewhere")
        for name in ("tmp", "rds", "build"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in ("tmp", "rds", "logs"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        try:
            port = free_port()
            self.endpoint = f"http://127.0.0.1:{port}"
            if self._rds == "rds-local":
                self._start_rds_local()
            else:
                self.rds_endpoint = self._rds
            self._start_ministack(port)
            self._write()
        except BaseException:
            self.stop()
            raise
        return self

    def _start_rds_local(self) -> None:
        roots = postgresql_roots()
        if not roots:
            raise CloudError("no PostgreSQL is installed. `make setup` installs it")
        data = self.directory / "rds"
        self._spawn("rds-local", "TERM", [
            rds_local_binary(), "--data", data, "--postgres", ",".join(map(str, roots)), "--listen", "127.0.0.1:0",
            "--aws-endpoint", self.endpoint, "--account", ACCOUNT, "--status-ms", self._status_ms])
        endpoint = data / "endpoint.json"
        self._await("rds-local", endpoint.is_file)
        told = json.loads(endpoint.read_text())
        self.rds_endpoint, self.rds_ca_file = told["url"], told.get("caFile")

    def _start_ministack(self, port: int) -> None:
        rds = ["--rds", self.rds_endpoint] if self.rds_endpoint else []
        self._spawn("ministack", "KILL", [sys.executable, HERE / "launcher.py", *rds], {
            **CREDENTIALS, "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LAMBDA_EXECUTOR": "local",
            "AUTH": "true" if self._auth else "false", "SFN_WAIT_SCALE": str(self._wait_scale),
            "MINISTACK_REGION": HOME_REGION, "MINISTACK_ACCOUNT_ID": ACCOUNT, "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true", "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0",
            "STATE_DIR": str(self.directory / "tmp" / "state"), "S3_DATA_DIR": str(self.directory / "tmp" / "s3"),
        })
        self._await("ministack", lambda: answers(f"{self.endpoint}/_ministack/health"))

    def _spawn(self, name: str, at_our_death: str, command: list, environment: dict | None = None) -> None:
        environment = {**{key: os.environ[key] for key in PASSED_ON if key in os.environ},
                       "TMPDIR": str(self.directory / "tmp"), **(environment or {})}
        command = [str(part) for part in command]
        with self.log(name).open("wb") as log:
            options = {"env": environment, "cwd": self.directory, "stdin": subprocess.DEVNULL, "stdout": log,
                       "stderr": subprocess.STDOUT}
            self._children[name] = (subprocess.Popen(command, start_new_session=True, **options) if self._detached
                                    else LIFELINE.start(command, at_our_death, **options))

    def _await(self, name: str, ready) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not ready():
            ended = self._children[name].poll()
            if ended is not None:
                raise CloudError(f"{name} ended with {ended} while starting:\n{tail(self.log(name))}")
            if time.monotonic() > deadline:
                raise CloudError(f"{name} was not ready within {START_WITHIN_S} s:\n{tail(self.log(name))}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops everything and removes its data; the logs stay. MiniStack goes first: it calls rds-local."""
        with signals_held():
            for name in ("ministack", "rds-local"):
                child = self._children.pop(name, None)
                if child:
                    stop(child, STOP_WITHIN_S)
            self._clean()

    def stop_detached(self) -> list[str]:
        """Stops a cloud that another process started. Returns the names of what was running."""
        found = self._read() or {"processes": {}}
        stopped = []
        for name in ("ministack", "rds-local"):
            process = found["processes"].get(name)
            if process and alive(**process):
                end(process)
                stopped.append(name)
        self._clean()
        return stopped

    def _clean(self) -> None:
        for name in ("tmp", "rds", "build"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / "cloud.json").unlink(missing_ok=True)

    # What it is

    def log(self, name: str) -> Path:
        """The log of "ministack" (with what functions print) or "rds-local"."""
        return self.directory / "logs" / f"{name}.log"

    def description(self) -> dict:
        """What `cloud.json` holds."""
        processes = {name: {"pid": child.pid, "started": start_time(child.pid)}
                     for name, child in self._children.items()}
        return {
            "endpoint": self.endpoint, "rdsEndpoint": self.rds_endpoint, "rdsCaFile": self.rds_ca_file,
            "region": self.region, "targetRegions": list(TARGET_REGIONS), "account": self.account,
            "pids": [process["pid"] for process in processes.values()], "processes": processes,
            "logs": {name: str(self.log(name)) for name in processes},
        }

    def _write(self) -> None:
        fresh = self.directory / "cloud.json.new"
        fresh.write_text(json.dumps(self.description(), indent=2) + "\n")
        fresh.replace(self.directory / "cloud.json")

    def _read(self) -> dict | None:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.directory / "cloud.json").read_text())
        return None

    # Its use

    def environment(self) -> dict[str, str]:
        """The variables that point the AWS CLI, SDKs and SAM at this cloud as its root user."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": self.region,
                "AWS_REGION": self.region, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self, service: str, region: str | None = None):
        """A boto3 client of a service in a Region, with the rights of the account's root; the same one every time."""
        with self._lock:
            key = (service, region or self.region)
            if key not in self._clients:
                self._clients[key] = self._make_client(service, region)
            return self._clients[key]

    def _make_client(self, service: str, region: str | None):
        return boto3.client(
            service, region_name=region or self.region, endpoint_url=self.endpoint, aws_access_key_id="test",
            aws_secret_access_key="test",
            # Without `proxies` the environment is looked through for some, while pytest writes to it in another thread.
            config=botocore.config.Config(retries={"mode": "standard", "total_max_attempts": 3}, proxies={}))

    def in_region(self, region: str) -> "LocalCloud":
        """The same running cloud with another Region as its home. It ends with this one, not by itself."""
        other = copy.copy(self)
        other.region = region
        return other

    def control(self, path: str, body: dict | None = None, method: str | None = None):
        """A call of rds-local's control API, for example `control("faults", {...})`. Returns the decoded answer."""
        return self._ask(f"{self.rds_endpoint}/_rds-local/{path}", body, method)

    def order(self, path: str, body: dict | None = None, method: str | None = None):
        """A call of the mends' own API (`mends/orders.py`), for example `order("orders", {...})`."""
        return self._ask(f"{self.endpoint}/_lifeboat/{path}", body, method)

    def set_wait_scale(self, scale: float) -> None:
        """How long a second of a Wait state or of a retry's interval takes from now on."""
        self._ask(f"{self.endpoint}/_ministack/config", {"stepfunctions._SFN_WAIT_SCALE": scale}, "POST")

    @staticmethod
    def _ask(url: str, body: dict | None, method: str | None):
        request = urllib.request.Request(
            url, method=method or ("POST" if body is not None else "GET"),
            data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise CloudError(f"{request.method} {request.full_url}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None

    def deploy(self, template: Path | str = ROOT / "template.yaml", parameters: dict[str, str] | None = None,
               stack: str = "lifeboat", say=None) -> dict[str, str]:
        """Builds a SAM template for this machine, deploys it, waits until its functions can be invoked.

        Returns the stack's outputs. The parameter Architecture is set; `parameters` may say more.
        """
        return deployment.deploy(self, Path(template), parameters or {}, stack, say or (lambda text: None))


def rds_local_binary() -> Path:
    """rds-local as the sources have it now: cargo builds it if need be. RDS_LOCAL_BINARY names another."""
    given = os.environ.get("RDS_LOCAL_BINARY")
    if given:
        return Path(given)
    done = subprocess.run(["cargo", "build", "--quiet", "--package", "rds-local"], cwd=ROOT,
                          env={**os.environ, "CARGO_TARGET_DIR": str(cargo_target())}, check=False)
    if done.returncode:
        raise CloudError("rds-local cannot be built; the compiler's messages are above")
    return cargo_target().resolve() / "debug" / "rds-local"


def free_port() -> int:
    """A free port below the range from which the system takes the ports of outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CloudError("no free port between 20000 and 32000")


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


def tail(path: Path, lines: int = 15) -> str:
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return f"({path} does not exist)"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; with its id it names a process for good. None if gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def alive(pid: int, started: int | None) -> bool:
    return started is not None and start_time(pid) == started


def end(process: dict) -> None:
    """Ends a process that is not our child: SIGTERM, and SIGKILL if that does not help in time."""
    for number, patience in ((signal.SIGTERM, STOP_WITHIN_S), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not alive(**process):
                return
            time.sleep(0.05)
    raise CloudError(f"process {process['pid']} cannot be stopped")


@contextlib.contextmanager
def signals_held():
    """A second Ctrl-C does not interrupt the clean-up. Only the main thread can say so; elsewhere nothing changes."""
    held = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in held}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_as_interrupt() -> None:
    """SIGTERM unwinds this process like Ctrl-C, so that `with` blocks end what they began."""
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)


# The command line

def up(cloud: LocalCloud) -> int:
    begun = time.monotonic()
    cloud.start()
    print(f"The cloud is up ({time.monotonic() - begun:.1f} s).")
    return status(cloud)


def status(cloud: LocalCloud) -> int:
    found = cloud._read()
    if not found:
        print(f"No cloud is running in {cloud.directory}.")
        return 1
    healthy = True
    for name, process in found["processes"].items():
        running = alive(**process)
        healthy &= running
        print(f"{name:<10} {'running' if running else 'DEAD':<8} pid {process['pid']:<8} log {found['logs'][name]}")
        if not running:
            print(tail(Path(found["logs"][name])))
    responding = answers(f"{found['endpoint']}/_ministack/health")
    healthy &= responding
    print(f"endpoint   {found['endpoint']}{'' if responding else '  DOES NOT ANSWER'}")
    print(f"rds        {found['rdsEndpoint']}  (control API under /_rds-local/, CA {found['rdsCaFile']})")
    print(f"regions    {found['region']}, {', '.join(found['targetRegions'])}; account {found['account']}")
    if healthy:
        functions = LocalCloud.running(cloud.directory).client("lambda").list_functions()["Functions"]
        for function in functions:
            print(f"function   {function['FunctionName']} ({function['State']})")
        # Said in full: version 1 of the AWS CLI forgets AWS_ENDPOINT_URL for RDS in us-east-1.
        print(f'use it     eval "$({sys.executable} {sys.argv[0]} env)"; '
              f'aws --endpoint-url "$AWS_ENDPOINT_URL" rds describe-db-instances')
        print("stop it    make cloud-down")
    return 0 if healthy else 1


def env(cloud: LocalCloud) -> int:
    for name, value in LocalCloud.running(cloud.directory).environment().items():
        print(f"export {name}={value}")
    return 0


def deploy(cloud: LocalCloud, parameters: list[str]) -> int:
    given = dict(pair.split("=", 1) for pair in parameters)
    outputs = LocalCloud.running(cloud.directory).deploy(
        parameters=given, say=lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(outputs, indent=2))
    return 0


def down(cloud: LocalCloud) -> int:
    stopped = cloud.stop_detached()
    print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down", "status", "env", "deploy"])
    parser.add_argument("parameters", nargs="*", help="deploy: template parameters, NAME=VALUE")
    parser.add_argument("--dir", type=Path, default=DIRECTORY, help="where its state and logs are")
    parser.add_argument("--rds", metavar="URL", default="rds-local", help="up: another RDS API than rds-local")
    parser.add_argument("--wait-scale", type=float, default=WAIT_SCALE,
                        help="up: how long a second of a Wait state takes (default %(default)s)")
    given = parser.parse_args()
    terminate_as_interrupt()
    cloud = LocalCloud(given.dir, detached=True, rds=given.rds, wait_scale=given.wait_scale)
    try:
        if given.command == "deploy":
            return deploy(cloud, given.parameters)
        return {"up": up, "down": down, "status": status, "env": env}[given.command](cloud)
    except CloudError as error:
        print(f"cloud: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cloud: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Drives the rds-local binary: starts it, speaks its two APIs, asks real databases with psql."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "local-cloud"))

from lifeline import LIFELINE  # noqa: E402

PASSWORD = "first-Secret"
# Milliseconds that outlast any test: a status is held until a test configures less.
HELD = 600_000
ACCOUNT = "000000000000"


def binary() -> Path:
    """The binary under test, built if it is out of date."""
    named = os.environ.get("RDS_LOCAL_BINARY")
    if named:
        return Path(named)
    subprocess.run(["cargo", "build", "--locked", "--quiet", "-p", "rds-local"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return Path(target) / "debug" / "rds-local"


def installations() -> list[Path]:
    """The PostgreSQL installations, oldest first; absent ones are an error and no skip."""
    named = os.environ.get("RDS_LOCAL_POSTGRES")
    cache = Path(os.environ.get("LIFEBOAT_CACHE", Path.home() / ".cache/lifeboat"))
    found = [Path(one) for one in named.split(",")] if named else sorted((cache / "postgresql").glob("[0-9][0-9]"))
    assert found, "no PostgreSQL installed: run `make setup`"
    return found


def poll(look, good, limit=60.0):
    """Looks until `good` says yes to what is seen, and returns it; after `limit` seconds it reports the last sight."""
    end = time.monotonic() + limit
    while True:
        seen = look()
        if good(seen):
            return seen
        assert time.monotonic() < end, f"not within {limit} s; last seen: {seen}"
        time.sleep(0.01)


def processes_in(directory) -> list[str]:
    """Processes whose working directory is inside `directory`: servers work in their data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = os.readlink(entry / "cwd").removesuffix(" (deleted)")
        except OSError:
            continue
        if place.startswith(str(directory)):
            found.append(f"{entry.name}:{place}")
    return found


class RdsLocal:
    """One running rds-local."""

    def __init__(self, directory: Path, *arguments: str, program: Path):
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "rds-local.log"
        with self.log.open("ab") as log:
            # However these tests end, it ends with them.
            self.process = LIFELINE.start(
                [program, "--data", self.data, *arguments], "TERM", stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        file = self.data / "endpoint.json"

        def ready():
            assert self.process.poll() is None, f"it ended: {self.log.read_text()}"
            # One that was killed leaves its file behind.
            return file.exists() and json.loads(file.read_text())["pid"] == self.process.pid

        poll(ready, bool)
        self.endpoint = json.loads(file.read_text())
        self.url = self.endpoint["url"]
        self.ca_file = self.endpoint["caFile"]

    def stop(self, how=signal.SIGTERM) -> int:
        """Ends it and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=60)

    def client(self, region: str, retries: int = 0):
        return boto3.client(
            "rds",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": retries + 1}, read_timeout=60),
        )

    def control(self, method: str, path: str, body=None):
        """Calls the control API; returns the status and the JSON."""
        request = urllib.request.Request(
            f"{self.url}/_rds-local/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def order(self, path: str, body) -> dict:
        status, answer = self.control("POST", path, body)
        assert status == 200, answer
        return answer

    def configure(self, **settings) -> None:
        self.order("config", settings)


class Region:
    """A Region that belongs to one test."""

    def __init__(self, rds: RdsLocal, name: str):
        self.rds = rds
        self.name = name
        self.client = rds.client(name)

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:rds:{self.name}:{ACCOUNT}:{kind}:{name}"

    def key(self, number: int = 1) -> str:
        return f"arn:aws:kms:{self.name}:{ACCOUNT}:key/{number:08}-12ab-34cd-56ef-1234567890ab"

    def begin_instance(self, name: str, **parameters) -> dict:
        given = {
            "DBInstanceIdentifier": name,
            "Engine": "postgres",
            "EngineVersion": "17",
            "DBInstanceClass": "db.t4g.micro",
            "AllocatedStorage": 20,
            "MasterUsername": "boss",
            "MasterUserPassword": PASSWORD,
            "DBName": "app",
        } | parameters
        return self.client.create_db_instance(**{key: value for key, value in given.items() if value is not None})

    def instance(self, name: str, **parameters) -> dict:
        self.begin_instance(name, **parameters)
        return self.wait_instance(name)

    def look(self, name: str) -> dict:
        return self.client.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def wait_instance(self, name: str, status: str = "available", settled: bool = True) -> dict:
        def good(seen):
            pending = settled and "MasterUserPassword" in seen["PendingModifiedValues"]
            return seen["DBInstanceStatus"] == status and not pending

        return poll(lambda: self.look(name), good)

    def wait_gone(self, name: str) -> None:
        def names():
            return [one["DBInstanceIdentifier"] for one in self.client.describe_db_instances()["DBInstances"]]

        poll(names, lambda seen: name not in seen)

    def look_snapshot(self, name: str) -> dict:
        # An automated snapshot is found by its identifier only with its type beside it.
        kind = {"SnapshotType": "automated"} if name.startswith("rds:") else {}
        return self.client.describe_db_snapshots(DBSnapshotIdentifier=name, **kind)["DBSnapshots"][0]

    def wait_snapshot(self, name: str, status: str = "available") -> dict:
        return poll(lambda: self.look_snapshot(name), lambda seen: seen["Status"] == status)

    def snapshot(self, name: str, instance: str, **parameters) -> dict:
        self.client.create_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier=instance, **parameters)
        self.wait_instance(instance)
        return self.wait_snapshot(name)

    def restore(self, name: str, snapshot: str, **parameters) -> dict:
        self.client.restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier=name, DBSnapshotIdentifier=snapshot, **parameters
        )
        return self.wait_instance(name)

    # Clusters

    def begin_cluster(self, name: str, **parameters) -> dict:
        given = {
            "DBClusterIdentifier": name,
            "Engine": "aurora-postgresql",
            "EngineVersion": "17",
            "MasterUsername": "boss",
            "MasterUserPassword": PASSWORD,
            "DatabaseName": "app",
        } | parameters
        return self.client.create_db_cluster(**{key: value for key, value in given.items() if value is not None})

    def cluster(self, name: str, members: int = 1, **parameters) -> dict:
        """An available cluster with so many members, `<name>-1` and on."""
        self.begin_cluster(name, **parameters)
        self.wait_cluster(name)
        for number in range(members):
            self.member(name, f"{name}-{number + 1}")
        return self.look_cluster(name)

    def member(self, cluster: str, name: str, **parameters) -> dict:
        given = {"DBInstanceClass": "db.r6g.large", "Engine": "aurora-postgresql"} | parameters
        self.client.create_db_instance(DBInstanceIdentifier=name, DBClusterIdentifier=cluster, **given)
        return self.wait_instance(name)

    def look_cluster(self, name: str) -> dict:
        return self.client.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]

    def wait_cluster(self, name: str, status: str = "available") -> dict:
        def good(seen):
            return seen["Status"] == status and "MasterUserPassword" not in seen.get("PendingModifiedValues", {})

        return poll(lambda: self.look_cluster(name), good)

    def wait_cluster_gone(self, name: str) -> None:
        def names():
            return [one["DBClusterIdentifier"] for one in self.client.describe_db_clusters()["DBClusters"]]

        poll(names, lambda seen: name not in seen)

    def look_cluster_snapshot(self, name: str) -> dict:
        listed = self.client.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)
        return listed["DBClusterSnapshots"][0]

    def wait_cluster_snapshot(self, name: str, status: str = "available") -> dict:
        return poll(lambda: self.look_cluster_snapshot(name), lambda seen: seen["Status"] == status)

    def cluster_snapshot(self, name: str, cluster: str, **parameters) -> dict:
        self.client.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=name, DBClusterIdentifier=cluster, **parameters
        )
        self.wait_cluster(cluster)
        return self.wait_cluster_snapshot(name)

    def delete_cluster(self, name: str) -> None:
        """Members first, where they are not RDS's own."""
        seen = self.look_cluster(name)
        if seen["Status"] in ("stopping", "stopped"):
            self.wait_cluster(name, "stopped")
            self.client.start_db_cluster(DBClusterIdentifier=name)
            seen = self.wait_cluster(name)
        if seen["DeletionProtection"]:
            self.client.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False)
        if seen["Engine"].startswith("aurora"):
            for member in seen["DBClusterMembers"]:
                if self.look(member["DBInstanceIdentifier"])["DBInstanceStatus"] != "deleting":
                    self.client.delete_db_instance(DBInstanceIdentifier=member["DBInstanceIdentifier"])
        self.client.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)

    def remove_clusters(self) -> None:
        names = list(self.state()["clusters"])
        for name in names:
            if self.look_cluster(name)["Status"] != "deleting":
                self.delete_cluster(name)
        for name in names:
            self.wait_cluster_gone(name)
        for name, snapshot in self.state()["clusterSnapshots"].items():
            if snapshot["status"] != "creating" and not name.startswith("rds:"):
                self.client.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)

    def _psql(self, instance: str, settings: dict) -> list:
        """The command that speaks as the master user through the instance's endpoint, TLS verified against the CA."""
        port = settings.pop("port", None) or self.look(instance)["Endpoint"]["Port"]
        given = {
            "host": "127.0.0.1",
            "port": port,
            "user": "boss",
            "password": PASSWORD,
            "dbname": "app",
            "sslmode": "verify-full",
            "sslrootcert": self.rds.ca_file,
            "connect_timeout": 10,
        } | settings
        connection = " ".join(f"{name}={value}" for name, value in given.items())
        return [installations()[-1] / "bin/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", connection]

    def psql(self, instance: str, statement: str, **settings) -> "Answer":
        """Runs SQL as the master user through the instance's endpoint."""
        command = [*self._psql(instance, settings), "-c", statement]
        return Answer(subprocess.run(command, capture_output=True, text=True, timeout=120))

    def pouring(self, instance: str, statement: str, times: int, told: Path) -> subprocess.Popen:
        """A client that repeats a statement, each time in a transaction of its own; what it is told goes to a file."""
        script = told.with_suffix(".sql")
        script.write_text(f"{statement};\n" * times)
        with told.open("wb") as out:
            return subprocess.Popen([*self._psql(instance, {}), "-f", script], stdout=out, stderr=subprocess.STDOUT)

    def connected(self, instance: str, **settings) -> "Connected":
        """A client that stays connected through the instance's endpoint, once it is."""
        return Connected(self._psql(instance, settings))

    def state(self) -> dict:
        status, answer = self.rds.control("GET", "state")
        assert status == 200
        return answer["regions"].get(
            self.name, {"instances": {}, "snapshots": {}, "clusters": {}, "clusterSnapshots": {}}
        )

    def fault(self, action: str, effect: dict, **more) -> None:
        self.rds.order("faults", {"action": action, "region": self.name, "effect": effect} | more)

    def damage(self, snapshot: str, kind: dict, database: str = "app") -> dict:
        order = {"region": self.name, "snapshot": snapshot, "database": database, "kind": kind}
        return self.rds.order("damage", order)


class Connected:
    """A client with one connection, as long as that lasts."""

    def __init__(self, command: list):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.value("select 1") == "1"

    def value(self, statement: str) -> str:
        """What a statement that answers one line says; empty when the connection is gone."""
        try:
            self.process.stdin.write(f"{statement};\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self.process.stdout.readline().strip()

    def lost(self) -> None:
        """The connection must be gone, or go soon."""
        said = poll(lambda: self.value("select 1"), lambda seen: seen != "1")
        said += self.process.communicate(timeout=60)[0]
        assert self.process.returncode == 2, said

    def leave(self) -> None:
        """Ends while the connection still works."""
        assert self.value("select 2") == "2"
        said = self.process.communicate(timeout=60)[0]
        assert self.process.returncode == 0, said


class Answer:
    """What psql said."""

    def __init__(self, done):
        self.fine = done.returncode == 0
        self.text = done.stdout.strip()
        self.error = done.stderr.strip()

    def __repr__(self):
        return f"{self.text!r} {self.error!r}"

    @property
    def value(self) -> str:
        assert self.fine, self.error
        return self.text


def wire_error(call, *arguments, **parameters) -> tuple[str, int, str]:
    """Code, HTTP status and message of the error that a call must end in."""
    try:
        answer = call(*arguments, **parameters)
    except Exception as error:
        response = getattr(error, "response", None)
        if response is None:
            raise
        return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]
    raise AssertionError(f"it should have been refused: {answer}")


def tags_of(described: dict) -> dict:
    return {tag["Key"]: tag["Value"] for tag in described["TagList"]}


def pairs(**tags) -> list[dict]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]

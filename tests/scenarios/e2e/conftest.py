"""One local cloud with the deployed stack for the whole session, IAM enforced; a small database that is written to.

With pytest-xdist (`-n`), each worker is such a session, and a file's tests run in one of them.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import botocore.exceptions
import pytest

HERE = Path(__file__).resolve().parent
LOCAL_CLOUD = HERE.parent.parent / "local-cloud"
sys.path.insert(0, str(LOCAL_CLOUD))

from cloud import LocalCloud, terminate_as_interrupt  # noqa: E402
import recording  # noqa: E402
from experiments import APPROVERS  # noqa: E402
from lifeline import LIFELINE, stop  # noqa: E402
from machines import Harness  # noqa: E402
from stage import Stage, together, until  # noqa: E402

# Waits of the machines pass this much faster; what is measured here is behaviour, not patience.
WAIT_SCALE = 0.02
# What the copies of a session's databases take in the end, when all files run in one.
ROOM = 12 * 2**30
MEMORY = Path("/dev/shm")
LANES = 6
# The files whose tests ran here.
RAN: set[str] = set()


def pytest_sessionstart(session):
    """What earlier sessions recorded is forgotten once, not by each worker."""
    terminate_as_interrupt()
    if not hasattr(session.config, "workerinput"):
        recording.forget()
        remove_what_the_killed_left()


def pytest_unconfigure(config):
    """When we are interrupted, workers get no time to remove what is in memory."""
    if not hasattr(config, "workerinput"):
        remove_what_the_killed_left()


def remove_what_the_killed_left() -> None:
    """A session that is killed cannot remove its directory, and would keep gigabytes of memory. Its lock is gone with it."""
    for place in MEMORY.glob("lifeboat-*"):
        try:
            held = os.open(place, os.O_RDONLY)
        except OSError:
            continue  # Gone meanwhile, or another user's.
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """Where the cloud lives: in memory, if there is room. Hundreds of copies of databases are made and removed, and
    files cost the kernel a third there."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path_factory.mktemp("cloud")
        return
    made = Path(tempfile.mkdtemp(prefix="new-lifeboat-", dir=MEMORY))
    held = os.open(made, os.O_RDONLY)
    try:
        # It has its name only with its lock, or another session might take it for one that was left.
        fcntl.flock(held, fcntl.LOCK_EX)
        made.chmod(0o755)
        made = made.rename(MEMORY / made.name.removeprefix("new-"))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


@pytest.fixture(scope="session")
def stage(directory, request):
    """The deployed stack. One minute is the shortest time that a restore can be given."""
    with LocalCloud(directory, wait_scale=WAIT_SCALE) as cloud:
        stage = Stage(cloud).create_keys()
        approvers = cloud.client("secretsmanager").create_secret(
            Name="lifeboat-test/approvers", SecretString=json.dumps({who: key.hex() for who, key in APPROVERS.items()}))
        on_call = cloud.client("sns").create_topic(Name="lifeboat-test-on-call")["TopicArn"]
        stage.prepare({
            "ChaosChannels": f"on-call={on_call}", "ChaosChannelTopicArns": on_call,
            "ChaosApprovalKey": approvers["ARN"], "ChaosSettlingSeconds": "3",
            # The shortest: a road of the scenarios waits it out.
            "ChaosApprovalMinutes": "1",
            "RestoreTimeoutMinutes": "1", "BreakerFailures": "100", "BreakerWindowMinutes": "1",
            "SourceSecretArns": f"arn:aws:secretsmanager:us-east-1:{cloud.account}:secret:lifeboat-test/*"})
        stage.subscribe("OnCall", on_call)
        yield stage
        option = request.config.option
        chosen = option.keyword or option.markexpr or os.environ.get("LIFEBOAT_SCENARIOS", "full") != "full"
        recording.record(stage, RAN, bool(chosen), os.environ.get("PYTEST_XDIST_WORKER", "alone"))


@pytest.fixture(scope="session")
def database(stage):
    """A few megabytes of real types, and a customer who goes on buying while the tests run."""
    database = stage.create_database("orders-db", Tags=[{"Key": "tier", "Value": "gold"}])
    database.script(LOCAL_CLOUD / "demo" / "schema.sql")
    together(
        lambda: database.script(LOCAL_CLOUD / "demo" / "data.sql", scale=1),
        lambda: subprocess.run(database.tool("pgbench", "-i", "-q", "-s", "1"), env=database.environment(),
                               check=True, capture_output=True))
    traffic = database.tool("pgbench", "-n", "-f", str(LOCAL_CLOUD / "demo" / "traffic.sql"), "-D", "scale=1",
                            "-D", "accounts=1", "-c", "1", "-R", "10", "-T", "7200")
    customers = LIFELINE.start(traffic, "TERM", env=database.environment(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield database
    stop(customers, 5)


@pytest.fixture(scope="session")
def lanes(stage):
    """Several databases, on which many executions run at once (machines.py)."""
    return Harness(stage, LANES)


@pytest.fixture(scope="module")
def harness(stage, lanes):
    """The lanes, while everything is quick: what is tested is behaviour in trouble, not patience."""
    stage.cloud.set_wait_scale(0.004)
    stage.cloud.control("config", {"statusMs": 60, "copyMs": 100, "snapshotQuota": 1000, "instanceQuota": 100})
    yield lanes
    stage.cloud.set_wait_scale(WAIT_SCALE)
    stage.cloud.control("config", {"statusMs": 300, "copyMs": 800, "snapshotQuota": 100, "instanceQuota": 40})


@pytest.fixture(scope="module", autouse=True)
def databases_of_experiments_go(stage, request):
    """With their file: the account may have as few instances as on AWS, and other files need some."""
    if not request.path.name.startswith("test_chaos"):
        yield
        return
    rds = stage.cloud.client("rds")

    def instances():
        return {one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]}

    def clusters():
        return {one["DBClusterIdentifier"] for one in rds.describe_db_clusters()["DBClusters"]}
    kept, kept_clusters = instances(), clusters()
    yield
    for name in instances() - kept:
        until(f"{name} can be deleted", lambda name=name: deleted(rds.delete_db_instance, DBInstanceIdentifier=name))
    until("the instances are gone", lambda: instances() <= kept, 60)
    for name in clusters() - kept_clusters:
        until(f"{name} can be deleted", lambda name=name: deleted(rds.delete_db_cluster, DBClusterIdentifier=name))
    until("the clusters are gone", lambda: clusters() <= kept_clusters, 60)


def deleted(call, **what) -> bool:
    """Whether a database is being deleted now; not while something else goes on with it."""
    try:
        call(SkipFinalSnapshot=True, **what)
    except botocore.exceptions.ClientError as refused:
        if refused.response["Error"]["Code"] not in ("InvalidDBInstanceState", "InvalidDBClusterStateFault"):
            raise
        return False
    return True


@pytest.fixture(scope="module", autouse=True)
def told_that_it_ran(request):
    """For what is about the whole session."""
    RAN.add(request.path.name)


@pytest.fixture(autouse=True)
def nothing_left(stage):
    """After each test: no fault is ordered any more, and nothing outlived its operation."""
    for topic in ("Critical", "Warning", "Info"):
        stage.alerts(topic)
    yield
    stage.cloud.control("faults", method="DELETE")
    assert stage.leftovers() == []

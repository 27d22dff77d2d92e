"""One local cloud with the deployed stack for the whole session, IAM enforced; a small database that is written to."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LOCAL_CLOUD = HERE.parent.parent / "local-cloud"
sys.path.insert(0, str(LOCAL_CLOUD))

from cloud import LocalCloud, terminate_as_interrupt  # noqa: E402
from lifeline import LIFELINE, stop  # noqa: E402
from stage import Stage, together  # noqa: E402

# Waits of the machines pass this much faster; what is measured here is behaviour, not patience.
WAIT_SCALE = 0.02


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The deployed stack. One minute is the shortest time that a restore can be given."""
    terminate_as_interrupt()
    with LocalCloud(tmp_path_factory.mktemp("cloud"), wait_scale=WAIT_SCALE) as cloud:
        stage = Stage(cloud).create_keys()
        stage.prepare({
            "RestoreTimeoutMinutes": "1", "BreakerFailures": "100",
            "SourceSecretArns": f"arn:aws:secretsmanager:us-east-1:{cloud.account}:secret:lifeboat-test/*"})
        yield stage


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


@pytest.fixture(autouse=True)
def nothing_left(stage):
    """After each test: no fault is ordered any more, and nothing outlived its operation."""
    for topic in ("Critical", "Warning", "Info"):
        stage.alerts(topic)
    yield
    stage.cloud.control("faults", method="DELETE")
    assert stage.leftovers() == []

"""One rds-local for all tests; each test has Regions of its own, so that none sees another's resources."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import RdsLocal, Region, binary, installations, processes_in  # noqa: E402

NUMBERS = itertools.count(1)
QUICK = {"statusMs": 40, "copyMs": 120, "initdbChecksums": True, "instanceQuota": 40, "snapshotQuota": 100}


@pytest.fixture(scope="session")
def program() -> Path:
    installations()
    return binary()


@pytest.fixture(scope="session")
def rds(program, tmp_path_factory):
    server = RdsLocal(tmp_path_factory.mktemp("rds"), program=program)
    yield server
    assert server.stop() == 0, server.log.read_text()
    assert processes_in(server.data) == []


@pytest.fixture
def start(program, tmp_path):
    """Starts further ones, for tests that end them."""
    begun = []

    def run(*arguments):
        begun.append(RdsLocal(tmp_path / f"own{len(begun)}" if begun else tmp_path, *arguments, program=program))
        return begun[-1]

    yield run
    for server in begun:
        server.stop()
        assert processes_in(server.data) == []


@pytest.fixture
def new_region(rds):
    """Makes Regions that no other test knows; what is in them afterwards is removed."""
    rds.configure(**QUICK, copySlots=20, clusterCopySlots=5, clusterQuota=40, clusterSnapshotQuota=100)
    made = []

    def make() -> Region:
        made.append(Region(rds, f"test-region-{next(NUMBERS)}"))
        return made[-1]

    yield make
    rds.control("DELETE", "faults")
    rds.configure(**QUICK)
    for region in made:
        region.remove_clusters()
        for name in region.state()["instances"]:
            if region.look(name)["DeletionProtection"]:
                region.client.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=False)
            if region.look(name)["DBInstanceStatus"] != "deleting":
                region.client.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
    for region in made:
        for name in region.state()["instances"]:
            region.wait_gone(name)
        for name, snapshot in region.state()["snapshots"].items():
            ours = not name.startswith(("rds:", "awsbackup:"))
            if snapshot["status"] != "creating" and ours:
                region.client.delete_db_snapshot(DBSnapshotIdentifier=name)


@pytest.fixture
def region(new_region):
    return new_region()

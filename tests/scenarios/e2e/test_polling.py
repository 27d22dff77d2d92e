"""A backup waits by what the database's snapshots took before: through the deployed stack, at the speed of a real one."""

import pytest
from conftest import WAIT_SCALE
from stage import until
from test_backups import QUIET, backup, entered

SNAPSHOT_MS = 24_000


@pytest.fixture
def unhurried(stage):
    """Waits last as long as the machine says, and a snapshot 24 seconds."""
    stage.cloud.set_wait_scale(1.0)
    stage.cloud.control("config", {"statusMs": SNAPSHOT_MS})
    yield
    stage.cloud.control("config", {"statusMs": 300})
    stage.cloud.set_wait_scale(WAIT_SCALE)


def looks(stage, ended):
    return entered(stage, ended["executionArn"]).count("CheckSnapshot")


def test_the_second_backup_of_a_database_looks_less_often_and_says_why(stage, request):
    # Larger than the databases of other tests: nothing is known of its size either.
    database = stage.create_database("paced-db", AllocatedStorage=3_000)
    request.getfixturevalue("unhurried")
    ask = {"database": database.name, "validation": {"depth": "quick"}, **QUIET}
    first, told = backup(stage, ask)
    assert first["status"] == "SUCCEEDED", first
    assert "waiting" not in told["checkpoints"]["progress:WaitForSnapshot"], "nothing is known of a first backup"
    before = told["checkpoints"]["snapshot"]["took"]["durationSeconds"]
    assert SNAPSHOT_MS / 1000 <= before < 60

    def idle():
        [instance] = stage.cloud.client("rds").describe_db_instances(DBInstanceIdentifier=database.name)["DBInstances"]
        return instance["DBInstanceStatus"] == "available"
    until("the database is available again", idle)
    second, told = backup(stage, ask)
    assert second["status"] == "SUCCEEDED", second
    assert looks(stage, first) >= 4 and looks(stage, second) <= 3
    # Not seen later than the first: at most one of the close pauses and what the looking itself takes.
    assert told["checkpoints"]["snapshot"]["took"]["durationSeconds"] <= before + 5
    why = told["checkpoints"]["progress:WaitForSnapshot"]["waiting"]
    assert why == f"expected {before} s from 1 earlier snapshot of {database.name}"

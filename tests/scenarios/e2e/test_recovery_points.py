"""Proofs of old recovery points and of copies in their own Region: through the deployed stacks, with IAM enforced."""

import pytest
from stage import until
from test_backups import QUIET, backup, copies, entered

STANDBY = "us-west-2"
# A page of a table that nobody writes to, and one row of a small one that is updated all the while: its counters would
# explain that one, and the restore of the first proof does not (ADR 4).
DAMAGE = {
    "shop.orders_2024": {"zeroPage": {"table": "shop.orders_2024", "block": 0}},
    "shop.customer": {"sql": {"statements": [
        "set session_replication_role = replica; delete from shop.customer where customer_id = 7"]}},
}


def tags(snapshot):
    return {tag["Key"]: tag["Value"] for tag in snapshot["TagList"]}


def damage(stage, region, name, database):
    for kind in DAMAGE.values():
        stage.cloud.control("damage", {
            "region": region, "snapshot": name, "database": database.database, "kind": kind})


def check_that_all_damage_is_named(proof, first):
    """Each damaged table, and no other, differs from what the first proof restored."""
    found = {finding["subject"]: finding for finding in proof["findings"] if finding["severity"] == "error"}
    assert proof["earlier"]["operationId"] == first["proofOperationId"]
    assert proof["earlier"]["different"]["tables"] == len(DAMAGE), proof
    for table in DAMAGE:
        [finding] = [finding for subject, finding in found.items() if subject.endswith("." + table)]
        assert finding["kind"] == "tableDifferent"
        assert f"when {first['proofOperationId']} restored the same snapshot" in finding["message"], finding


def check_that_it_is_what_the_first_proof_restored(proof, first):
    """Every table is equal, and as much is proven as when the source could be asked."""
    assert proof["earlier"]["operationId"] == first["proofOperationId"]
    assert "notComparable" not in proof["earlier"] or proof["earlier"]["notComparable"] is None
    assert proof["earlier"]["equal"]["tables"] == proof["coverage"]["total"]["tables"] > 0
    assert proof["coverage"] == first["coverage"]
    assert [finding for finding in proof["findings"] if finding["kind"] == "earlierNotComparable"] == []


def test_a_random_recovery_point_is_chosen_by_its_seed_proven_against_its_own_frame_and_labelled(stage, database):
    ended, operation = backup(stage, {"database": database.name, **QUIET})
    assert ended["status"] == "SUCCEEDED", ended
    selector = {"random": {"seed": "a-week", "database": database.name}}
    proven = stage.run("ProveBackup", {"selector": selector})
    assert proven["status"] == "SUCCEEDED", proven
    proof = stage.operation(proven["executionArn"])
    chosen = proof["checkpoints"]["chosen"]
    assert chosen["seed"] == "a-week" and chosen["seen"] >= chosen["eligible"] >= 1
    assert proof["plan"]["snapshotId"] == chosen["chosen"]["snapshotId"] == proof["resourceId"]
    assert proof["plan"]["labelOperationId"] == chosen["chosen"]["owner"]
    [snapshot] = copies(stage, stage.cloud.region, proof["resourceId"])
    frame = chosen["frameOperationId"]
    assert proven["output"]["verdict"] == "proven", proven["output"]
    # Backups of depth quick made no frame.
    assert proven["output"]["level"] == ("content" if frame else "structure")
    assert tags(snapshot)["lifeboat:proof-level"] == proven["output"]["level"]
    assert tags(snapshot)["lifeboat:proven-at"] == proven["output"]["judgedAt"]
    if frame == operation["operationId"]:
        assert proof["resourceId"] == ended["output"]["snapshotId"]
        check_that_it_is_what_the_first_proof_restored(proven["output"], ended["output"]["proof"])
    assert proof["plan"]["earlierOperationId"] == chosen["earlierOperationId"]
    assert ("earlier" in proven["output"]) == bool(chosen["earlierOperationId"]), "its first proof, or it is the first"
    # The same seed among the same snapshots gives the same one, now of depth quick: it does not lessen what is known.
    quick = stage.run("ProveBackup", {"selector": selector, "validation": {"depth": "quick"}})
    assert quick["output"]["snapshotId"] == proof["resourceId"]
    [after] = copies(stage, stage.cloud.region, proof["resourceId"])
    assert tags(after) == tags(snapshot)


def test_a_recovery_point_that_was_damaged_since_is_no_longer_one(stage, database):
    ended, _ = backup(stage, {"database": database.name, **QUIET})
    name = ended["output"]["snapshotId"]
    proven = stage.run("ProveBackup", {"snapshotId": name})
    assert (proven["status"], proven["output"]["verdict"]) == ("SUCCEEDED", "proven"), proven
    check_that_it_is_what_the_first_proof_restored(proven["output"], ended["output"]["proof"])
    damage(stage, stage.cloud.region, name, database)
    proven = stage.run("ProveBackup", {"snapshotId": name})
    assert (proven["status"], proven["output"]["verdict"], proven["output"]["level"]) == (
        "SUCCEEDED", "unproven", "content")
    check_that_all_damage_is_named(proven["output"], ended["output"]["proof"])
    [snapshot] = copies(stage, stage.cloud.region, name)
    assert tags(snapshot)["lifeboat:proof"] == "unproven"
    assert any(name in alert["subject"] for alert in stage.alerts("Critical"))


def test_a_random_choice_of_a_database_without_recovery_points_is_refused_by_name(stage):
    ended = stage.run("ProveBackup", {"selector": {"random": {"database": "never-backed-up"}}})
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.RecoveryPointMissing"), ended
    assert any("Dr.RecoveryPointMissing" in alert["subject"] for alert in stage.alerts("Critical"))


@pytest.fixture(scope="module")
def standby(stage):
    """The same template in a target Region, with everything of its own, which may read the frames at home."""
    return stage.beside(STANDBY, {
        "RestoreTimeoutMinutes": "1", "BreakerFailures": "100", "HomeRegion": stage.cloud.region,
        "HomeMetadataBucket": stage.outputs["MetadataBucketName"], "HomeKeyArns": stage.outputs["KeyArn"]})


def proof_there(standby, name):
    """Proves the newest copy there; returns how it ended and the operation's record."""
    ended = standby.run("ProveBackup", {"selector": {"unprovenCopy": {}}})
    operation = standby.operation(ended["executionArn"])
    assert operation["resourceId"] == name, operation
    return ended, operation


def test_a_copy_is_proven_in_its_own_region_against_the_frame_at_home(stage, standby, database):
    ended, operation = backup(stage, {"database": database.name, "targetRegions": [STANDBY]})
    assert ended["status"] == "SUCCEEDED", ended
    name = ended["output"]["snapshotId"]
    [copy] = copies(stage, STANDBY, name)
    assert tags(copy)["lifeboat:proven-in"] == stage.cloud.region, "what it carries is not about itself"

    proven, proof = proof_there(standby, name)
    assert proven["status"] == "SUCCEEDED", proven
    assert (proven["output"]["verdict"], proven["output"]["level"]) == ("proven", "content"), proven["output"]
    assert proof["plan"]["frameOperationId"] == operation["operationId"]
    check_that_it_is_what_the_first_proof_restored(proven["output"], ended["output"]["proof"])
    assert proof["plan"]["database"] is None, "the source is not asked"
    [copy] = copies(stage, STANDBY, name)
    assert tags(copy)["lifeboat:proven-in"] == STANDBY
    assert tags(copy)["lifeboat:proof"] == "proven" and tags(copy)["lifeboat:proof-level"] == "content"
    assert tags(copy)["lifeboat:proven-at"] == proven["output"]["judgedAt"]
    assert standby.leftovers() == []


def test_a_copy_that_is_damaged_is_refused_there_and_the_snapshot_at_home_stays_proven(stage, standby, database):
    ended, _ = backup(stage, {"database": database.name, "targetRegions": [STANDBY]})
    assert ended["status"] == "SUCCEEDED", ended
    name = ended["output"]["snapshotId"]
    damage(stage, STANDBY, name, database)
    proven, proof = proof_there(standby, name)
    assert proven["status"] == "SUCCEEDED" and proof["status"] == "succeeded"
    assert proven["output"]["verdict"] == "unproven", proven["output"]
    check_that_all_damage_is_named(proven["output"], ended["output"]["proof"])
    [copy], [home] = copies(stage, STANDBY, name), copies(stage, stage.cloud.region, name)
    assert tags(copy)["lifeboat:proof"] == "unproven"
    assert tags(home)["lifeboat:proof"] == "proven"
    [alert] = [alert for alert in standby.alerts("Critical") if name in alert["subject"]]
    assert "NOT proven" in alert["subject"]
    assert [alert for alert in stage.alerts("Critical") if name in alert["subject"]] == []
    # Neither of the two is due again.
    due = standby.run("ProveBackup", {"selector": {"unprovenCopy": {"database": database.name}}})
    if due["output"].get("nothingToProve"):
        assert "RecordNothingToProve" in entered(standby, due["executionArn"])
    else:
        assert due["output"]["snapshotId"] != name
    until("nothing is left there", lambda: standby.leftovers() == [])

"""The AWS CLI understands it: requests, answers, waiters, errors."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_aws_cli_backs_up_and_copies(new_region):
    home, away = new_region(), new_region()
    aws = Path(sys.executable).parent / "aws"
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }

    def run(region, *words, fine=True):
        command = [aws, "--endpoint-url", region.rds.url, "--region", region.name, "--output", "json", "rds", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert (done.returncode == 0) == fine, done.stderr
        return json.loads(done.stdout) if fine and done.stdout.strip() else done.stderr

    created = run(
        home,
        *"create-db-instance --db-instance-identifier orders --engine postgres --db-instance-class db.t4g.micro".split(),
        *"--allocated-storage 20 --master-username boss --master-user-password first-Secret --db-name app".split(),
        *"--storage-encrypted --tags Key=team,Value=payments".split(),
    )
    assert created["DBInstance"]["DBInstanceStatus"] == "creating"
    home.wait_instance("orders")
    run(home, "wait", "db-instance-available", "--db-instance-identifier", "orders")
    run(home, *"create-db-snapshot --db-snapshot-identifier shot --db-instance-identifier orders".split())
    home.wait_snapshot("shot")
    run(home, "wait", "db-snapshot-available", "--db-snapshot-identifier", "shot")
    source = home.arn("snapshot", "shot")
    copy = ["copy-db-snapshot", "--source-db-snapshot-identifier", source, "--target-db-snapshot-identifier", "copy"]
    assert "InvalidParameterValue" in run(away, *copy, fine=False)
    run(away, *copy, "--kms-key-id", away.key(), "--source-region", home.name, "--copy-tags")
    away.wait_snapshot("copy")
    listed = run(away, "describe-db-snapshots")["DBSnapshots"]
    assert [one["DBSnapshotIdentifier"] for one in listed] == ["copy"]
    absent = run(away, "describe-db-snapshots", "--db-snapshot-identifier", "absent", fine=False)
    assert "DBSnapshotNotFound" in absent
    run(away, "delete-db-snapshot", "--db-snapshot-identifier", "copy")
    run(home, "delete-db-instance", "--db-instance-identifier", "orders", "--skip-final-snapshot")
    home.wait_gone("orders")

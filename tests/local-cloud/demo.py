"""The whole road on this machine: a database that is written to is backed up, restored, proven and copied to two
Regions; then a damaged backup is caught. `KEEP=1` leaves the cloud up.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cloud import LocalCloud, CloudError, terminate_as_interrupt
from deployment import DeploymentError
from lifeline import LIFELINE, stop
from report import cost_of, show_backup, show_refusal
from stage import Database, Stage, StageError, together
from watch import Watch

HERE = Path(__file__).resolve().parent
DATABASE = "orders-db"
# Thousands of customers, and pgbench's scale (100,000 accounts, about 15 MB each): some 350 MB together.
CUSTOMERS, ACCOUNTS = 60, 12
LONGEST_BACKUP_S = 240


def say(text: str = "") -> None:
    print(text, flush=True)


def fill(database: Database) -> None:
    """Real tables with real data: pgbench's, and those of demo/schema.sql."""
    database.script(HERE / "demo" / "schema.sql")
    pgbench = database.tool("pgbench", "-i", "-q", "-s", str(ACCOUNTS), "--foreign-keys")
    together(
        lambda: database.script(HERE / "demo" / "data.sql", scale=CUSTOMERS),
        lambda: subprocess.run(pgbench, env=database.environment(), check=True, capture_output=True),
    )
    database.sql("analyze")


@contextlib.contextmanager
def traffic(database: Database, log: Path):
    """Customers who go on buying until the block ends: about 40 transactions a second over two connections."""
    command = database.tool(
        "pgbench", "-n", "-f", str(HERE / "demo" / "traffic.sql"), "-D", f"scale={CUSTOMERS}",
        "-D", f"accounts={ACCOUNTS}", "-c", "2", "-R", "40", "-T", "3600", "-P", "5")
    with log.open("wb") as output:
        customers = LIFELINE.start(command, "TERM", env=database.environment(), stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT)
    try:
        yield customers
    finally:
        stop(customers, 5)


def backup(stage: Stage, database: Database, damage: dict | None = None) -> tuple[dict, Watch, str]:
    """Runs one backup under the eyes of the user; the snapshot of a damaged one before it is restored."""
    request = {"database": DATABASE, "tags": {"Environment": "production", "Owner": "devops-team"},
               "lifecycle": {"deleteAfterDays": 35}, "validation": {"foreignKeys": True}}
    if damage is None:
        execution = stage.start("BackupOrchestration", request)
    else:
        execution = stage.start_damaged(request, database.database, damage)

    def on_enter(state: str) -> None:
        if state == "ValidateBackup" and damage is not None:
            say(f"             >>> damage, in the snapshot's files: {json.dumps(damage)}")
    watch = Watch(stage, execution, say, on_enter=on_enter)
    return watch.follow(LONGEST_BACKUP_S), watch, execution


def run(cloud: LocalCloud) -> Stage:
    begun = time.monotonic()
    say("== 1. A cloud on this machine ==")
    stage = Stage(cloud)
    say(f"MiniStack at {cloud.endpoint}, RDS at {cloud.rds_endpoint}")

    def source() -> Database:
        database = stage.create_database(DATABASE, EngineVersion="17", Tags=[{"Key": "tier", "Value": "production"}])
        fill(database)
        return database
    stage.create_keys()
    _, database = together(lambda: stage.prepare(say=say), source)
    size = database.sql("select pg_size_pretty(pg_database_size(current_database()))")
    say(f"stack deployed, database {database.name} filled with {size} ({time.monotonic() - begun:.0f} s)")

    with traffic(database, cloud.directory / "logs" / "traffic.log"):
        say(f"\n== 2. A backup of {database.name}, which is being written to ==")
        ended, watch, execution = backup(stage, database)
        if ended["status"] != "SUCCEEDED":
            raise StageError(f"the backup ended {ended['status']}: {ended.get('error')}: {ended.get('cause')}")
        show_backup(stage, ended["output"], stage.operation(execution), watch, say)

        say("\n== 3. The next backup is damaged: one heap page of its snapshot is zeroed ==")
        cost_of(stage)
        ended, watch, execution = backup(stage, database, {"zeroPage": {"table": "shop.customer", "block": 7}})
        if ended["status"] != "FAILED" or ended.get("error") != "Dr.BackupUnproven":
            raise StageError(f"the damaged backup ended {ended['status']} ({ended.get('error')}), not as unproven")
        show_refusal(stage, ended, stage.operation(execution), say)
    left = stage.leftovers()
    if left:
        raise StageError(f"left behind: {', '.join(left)}")
    say(f"\nNothing was left behind: no temporary instance, no secret, no lock. ({time.monotonic() - begun:.0f} s in all)")
    return stage


def keep(cloud: LocalCloud, stage: Stage) -> None:
    """Waits until the user has seen enough."""
    aws = f'{HERE.parent.parent}/.venv/bin/aws --endpoint-url "$AWS_ENDPOINT_URL"'
    say("\nThe cloud stays up (KEEP=1). In another shell:")
    for name, value in cloud.environment().items():
        say(f"  export {name}={value}")
    say("  aws() { " + aws + ' "$@"; }')
    say("  aws rds describe-db-snapshots --query 'DBSnapshots[].[DBSnapshotIdentifier,Status]' --output text")
    say("  aws rds describe-db-snapshots --region us-west-2 --query 'DBSnapshots[].[DBSnapshotIdentifier,KmsKeyId]'")
    say(f"  aws stepfunctions list-executions --state-machine-arn {stage.outputs['BackupOrchestrationArn']}")
    say(f"  aws stepfunctions start-execution --state-machine-arn {stage.outputs['BackupOrchestrationArn']}"
        f" --input '{{\"database\": \"{DATABASE}\"}}'")
    say(f"  aws dynamodb query --table-name {stage.outputs['StateTableName']} --index-name TypeTimeIndex"
        " --key-condition-expression '#t = :t' --expression-attribute-names '{\"#t\": \"type\"}'"
        " --expression-attribute-values '{\":t\": {\"S\": \"backup\"}}'")
    say(f"Logs: {cloud.directory / 'logs'}. Ctrl-C stops everything.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def main() -> int:
    terminate_as_interrupt()
    try:
        with LocalCloud(HERE.parent.parent / ".local-cloud") as cloud:
            stage = run(cloud)
            if os.environ.get("KEEP") == "1":
                keep(cloud, stage)
        return 0
    except (CloudError, DeploymentError, StageError, TimeoutError) as error:
        say(f"demo: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo: interrupted; everything is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""What one backup with two Regions takes of Step Functions and Lambda: one run on the local cloud, counted from the
execution histories and the functions' REPORT lines.
"""

import sys
import tempfile
from pathlib import Path

from measure import ROOT, Section

# Waits pass this much faster than on AWS: polling counts what it would count there, in less time.
WAIT_SCALE = 0.05


def backup() -> Section:
    sys.path.insert(0, str(ROOT / "tests" / "local-cloud"))
    from cloud import LocalCloud
    from report import GB_SECOND, REQUEST, TRANSITION, cost_of
    from stage import Stage
    from watch import Watch

    section = Section("backup", "One backup with two Regions", (
        "A database of a few megabytes through the deployed template on the local cloud, restored, proven and copied to two "
        f"Regions. Prices: ${TRANSITION} a state transition, ${GB_SECOND} a GB-second on arm64, ${REQUEST} a request (US East, "
        "https://aws.amazon.com/step-functions/pricing/, https://aws.amazon.com/lambda/pricing/, read 2026-11). The instance, "
        "storage, transfer, KMS, DynamoDB and S3 are not in it."))
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as directory, \
            LocalCloud(Path(directory), wait_scale=WAIT_SCALE) as cloud:
        stage = Stage(cloud).create_keys()
        stage.prepare()
        database = stage.create_database("orders-db")
        database.script(ROOT / "tests" / "local-cloud" / "demo" / "schema.sql")
        database.script(ROOT / "tests" / "local-cloud" / "demo" / "data.sql", scale=1)
        cost_of(stage)
        watch = Watch(stage, stage.start("BackupOrchestration", {"database": database.name}), lambda text: None)
        ended = watch.follow(300)
        if ended["status"] != "SUCCEEDED":
            raise RuntimeError(f"the backup ended {ended['status']}: {ended.get('error')}: {ended.get('cause')}")
        spent = cost_of(stage)
    dollars = watch.transitions * TRANSITION
    section.add("state transitions", watch.transitions)
    section.add("of them by polling", watch.repeated)
    section.add("cost of the transitions", dollars * 1000, "$/1000")
    section.add("invocations", spent["invocations"])
    section.add("Lambda, billed", spent["milliseconds"], "ms")
    section.add("cost of Lambda", spent["dollars"] * 1000, "$/1000")
    section.add("cost of both", (dollars + spent["dollars"]) * 1000, "$/1000")
    section.notes.append(
        "Functions of the quick build that the local cloud deploys; their time is mostly waiting. A snapshot, a restore and a "
        "copy take seconds here and minutes on RDS, so polling costs more there.")
    return section

"""What a person wants to read at the end: what is proven, of how much, by what, at which price."""

import re
from datetime import datetime

# US East (Ohio, N. Virginia), 2026, without free tier: Step Functions a Standard transition; Lambda on arm64 a GB-second
# and a request. https://aws.amazon.com/step-functions/pricing/ and https://aws.amazon.com/lambda/pricing/
TRANSITION, GB_SECOND, REQUEST = 0.000025, 0.0000133334, 0.0000002
REPORT_LINE = re.compile(r"Billed Duration: (\d+(?:\.\d+)?) ms\s+Memory Size: (\d+) MB")
# What was billed by the functions up to the last look.
_seen: dict[str, int] = {}


def cost_of(stage) -> dict:
    """Invocations, milliseconds and dollars of Lambda since the last look, from the functions' REPORT lines."""
    logs = stage.cloud.client("logs")
    total = {"invocations": 0, "milliseconds": 0.0, "dollars": 0.0}
    for output, function in stage.outputs.items():
        if not output.endswith("FunctionName"):
            continue
        lines = []
        for group in logs.describe_log_groups()["logGroups"]:
            if group["logGroupName"].endswith(function):
                pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
                lines += [event["message"] for page in pages for event in page["events"] if "REPORT" in event["message"]]
        for line in lines[_seen.get(function, 0):]:
            found = REPORT_LINE.search(line)
            if found:
                milliseconds, megabytes = float(found[1]), int(found[2])
                total["invocations"] += 1
                total["milliseconds"] += milliseconds
                total["dollars"] += milliseconds / 1000 * megabytes / 1024 * GB_SECOND + REQUEST
        _seen[function] = len(lines)
    return total


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def moment(text: str) -> datetime:
    """A time stamp of ours or of Step Functions."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def show_backup(stage, output: dict, operation: dict, watch, say) -> None:
    """The report of a backup that is proven."""
    proof, snapshot, result = output["proof"], operation["checkpoints"]["snapshot"], operation["result"]
    report = stage.report(proof["reportKey"])
    coverage = proof["coverage"]
    rows = [
        ("verdict", f"{proof['verdict'].upper()} ({proof['level']}): {proof['headline']}"),
        ("snapshot", f"{output['snapshotId']}"),
        ("", f"{snapshot['sizeGb']} GB allocated, PostgreSQL {snapshot['engineVersion']}, encrypted under "
             f"{snapshot['kmsKeyId']}"),
        ("coverage", f"{coverage['provenRowsPercent']:.2f} % of rows and {coverage['provenBytesPercent']:.2f} % of bytes"
                     " shown to be what they were on the source"),
    ]
    for verdict, amount in coverage["byVerdict"].items():
        rows.append(("", f"{verdict:<10} {amount['tables']:>3} tables {amount['rows']:>10,} rows {size(amount['bytes']):>9}"))
    rows.append(("schema", f"sha256 {proof['schemaFingerprint']}"))
    rows.append(("rows", f"{proof['rowCount']:,} on the restore"))
    for table in sorted(report["tables"], key=lambda table: -table["bytes"])[:6]:
        residue = f", {table['residue']} changed meanwhile" if table["residue"] else ""
        rows.append(("", f"{table['name']['schema']}.{table['name']['table']:<18} {table['rows']:>9,} "
                         f"{table['verdict']}{residue}"))
    checks = proof["checks"]
    rows += [
        ("integrity", f"{checks['sound']} sound, {checks['faulty']} faulty, {checks['notPossible']} not possible"
                      " (heaps, B-trees, foreign keys)"),
        ("RPO", f"{proof['rpoSeconds']} s measured: from the last heartbeat on the restore to the snapshot"),
        ("time to", f"available {proof['timeToAvailableSeconds']} s, proven "
                    f"{(moment(proof['judgedAt']) - moment(snapshot['snapshotCreateTime'])).total_seconds():.0f} s after the snapshot"),
    ]
    for index, copy in enumerate(output["copies"]):
        rows.append(("copies" if index == 0 else "", f"{copy['region']}: {copy['snapshotArn']}"))
        rows.append(("", f"{'':<11}encrypted under {copy['kmsKeyArn']}"))
    settings = result["database"]["settings"]
    rows += [
        ("operation", f"{operation['operationId']}: {operation['status']}, {operation['startedAt']} to {operation['endedAt']}"),
        ("", "records for a later restore: " + ", ".join(f"{key} {value}" for key, value in settings.items() if value)),
    ]
    spent = cost_of(stage)
    rows.append(("cost", f"{watch.transitions} state transitions (${watch.transitions * TRANSITION:.4f}; {watch.repeated}"
                         " of them by polling, here 20 times as often as on AWS), "
                         f"{spent['invocations']} invocations, {spent['milliseconds']:.0f} ms of Lambda "
                         f"(${spent['dollars']:.5f} at these sizes), without the instance, storage and transfer"))
    say()
    for name, text in rows:
        say(f"  {name:<10} {text}")


def show_refusal(stage, ended: dict, operation: dict, say) -> None:
    """What became of the damaged backup."""
    say(f"\n  execution  {ended['status']}: {ended['error']}")
    say(f"  operation  {operation['operationId']}: {operation['status']}, {operation['error']['name']}")
    for part in operation["error"]["message"].split("; ")[:4]:
        say(f"             {part}")
    name = operation["plan"]["snapshotId"]
    rds = stage.cloud.client("rds")
    [snapshot] = rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"]
    tags = {tag["Key"]: tag["Value"] for tag in snapshot["TagList"]}
    say(f"  snapshot   {name}: lifeboat:proof = {tags['lifeboat:proof']}")
    for target in operation["plan"]["targets"]:
        there = [copy for copy in stage.cloud.client("rds", target["region"]).describe_db_snapshots()["DBSnapshots"]
                 if copy["DBSnapshotIdentifier"] == name]
        say(f"  {target['region']:<10} {'COPIED, which must not be' if there else 'no copy, as it must be'}")
        if there:
            raise RuntimeError(f"{name} was copied to {target['region']} though it is not proven")
    alerts = [alert for alert in stage.alerts("Critical") if name in alert["message"]]
    if not alerts:
        raise RuntimeError("no alert arrived on the critical topic")
    say(f"  alert      {alerts[0]['subject']}")
    for line in alerts[0]["message"].splitlines():
        say(f"             {line}")

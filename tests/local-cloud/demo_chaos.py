"""Chaos with a seat belt on this machine: a Multi-AZ database fails over under load, with an approval, and says how long it
was away and whether it lost anything; then an experiment that would have it stopped is ended by the emergency stop in the
middle. Both reports are printed.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from cloud import CloudError, LocalCloud, terminate_as_interrupt
from demo import HERE, fill, say, traffic
from deployment import DeploymentError
from stage import MAY_BE_HARMED, Stage, StageError, until

DATABASE = "orders-db"
APPROVE = HERE.parent.parent / "functions" / "chaos_runner" / "tools" / "approve.py"
APPROVER, REQUESTER = "grace", "ada"
DURATION_MS = 20_000


def experiment(name: str, title: str, faults: list[dict], **more) -> dict:
    """An experiment on the demo's database whose steady state is that it answers and has lost nothing."""
    intact = {"probe": "data-intact", "database": DATABASE}
    return {
        "id": name, "name": title, "type": "database", "severity": "medium", "dryRun": False, "requestedBy": REQUESTER,
        "targetResources": {"rdsInstances": [DATABASE]}, "faults": faults,
        "parameters": {"duration": DURATION_MS, "intensity": 100, "recoverySeconds": 120, **more},
        "steadyState": [intact], "postChecks": [intact], "rollbackPlan": [{"action": "undo-faults"}]}


def status(stage: Stage, operation: str) -> dict | None:
    """Where an experiment is; None before it asks or begins."""
    return stage.invoke("ChaosRunner", {"status": {"operationId": operation}})[0]


def ask(stage: Stage, action: str, payload: dict) -> dict:
    """An action of chaos_runner that must go well."""
    answer, error = stage.invoke("ChaosRunner", {action: payload})
    if error:
        raise StageError(f"{action}: {error}")
    return answer


class Follower:
    """Tells what becomes of an experiment."""

    def __init__(self, stage: Stage, execution: str):
        self.stage, self.execution, self.begun, self.phase = stage, execution, time.monotonic(), None
        self.operation = until("the experiment is recorded", lambda: stage.operation(execution))["operationId"]

    def until(self, *phases: str, seconds: float = 120) -> dict:
        """Follows it until it is in one of these phases."""
        def there():
            seen = status(self.stage, self.operation)
            if seen and seen["phase"] != self.phase:
                self.phase = seen["phase"]
                say(f"  {time.monotonic() - self.begun:5.1f} s   {self.phase}")
                for line in seen["journal"]:
                    if line["status"] in ("begun", "made") and self.phase == "observing":
                        say(f"            {line['change']}")
            return seen if seen and seen["phase"] in phases else None
        return until(f"{self.operation} is {' or '.join(phases)}", there, seconds, pause=0.2)


def approve(stage: Stage, operation: str, plan_hash: str, key: bytes) -> dict:
    """As a person approves: by the script, with the approver's own key in a file."""
    file = stage.cloud.directory / "approver.key"
    file.touch(mode=0o600)
    file.write_text(key.hex())
    done = subprocess.run(
        [sys.executable, str(APPROVE), "--operation", operation, "--plan", plan_hash, "--approver", APPROVER,
         "--expires", "30", "--key-file", str(file), "--function", stage.outputs["ChaosRunnerFunctionName"],
         "--region", stage.cloud.region],
        env={**os.environ, **stage.cloud.environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False)
    file.unlink()
    if done.returncode:
        raise StageError(f"approve.py ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def show(stage: Stage, operation: str) -> dict:
    """The report of an experiment that is over."""
    report = stage.report(f"chaos/{operation}/report.json")
    metrics = report["metrics"]
    reason = report["reason"]
    rows = [
        ("status", report["status"].upper()),
        ("reason", reason["kind"] + (f": {reason['detail']}" if "detail" in reason else "")),
        ("recovery", "-" if metrics["recoveryTime"] is None else f"{metrics['recoveryTime'] / 1000:.1f} s"),
        ("outage", "none seen" if metrics["outage"] is None else f"{metrics['outage'] / 1000:.1f} s, as looks saw it"),
        ("data", {True: "intact: nothing that was acknowledged is lost", False: "NOT INTACT", None: "nothing tells all of it"}[
            metrics["dataIntegrity"]]),
        *([("rows", f"{report['data']['verdict']}: {report['data']['detail']}")] if "data" in report else []),
        ("approved", ", ".join(report["journal"].get("approvedBy", [])) or "not needed"),
        ("plan", report["planHash"]),
    ]
    for entry in report["journal"]["entries"]:
        step = entry["step"]
        rows.append(("change", f"{next(iter(step['change'])) if isinstance(step['change'], dict) else step['change']}"
                               f" of {step['resource']['id']}: {entry['status']}"))
    for finding in [*report["before"][:1], *report["during"][:2], *report["after"][:2]]:
        rows.append((finding["at"][11:19], f"{finding['probe']['probe']} {finding['verdict']}: {finding['detail'][:90]}"))
    say()
    for name, text in rows:
        say(f"  {name:<10} {text}")
    return report


def check(fine: bool, what: str) -> None:
    if not fine:
        raise StageError(what)


def run(cloud: LocalCloud) -> None:
    begun = time.monotonic()
    say("== 1. A cloud on this machine, and a Multi-AZ database ==")
    stage = Stage(cloud).create_keys()
    key = secrets.token_bytes(32)
    approvers = cloud.client("secretsmanager").create_secret(
        Name="lifeboat/approvers", SecretString=json.dumps({APPROVER: key.hex()}))
    stage.prepare({"ChaosApprovalKey": approvers["ARN"], "ChaosSettlingSeconds": "2"}, say=say)
    database = stage.create_database(DATABASE, MultiAZ=True, Tags=[MAY_BE_HARMED])
    fill(database)
    say(f"stack deployed, database {DATABASE} filled ({time.monotonic() - begun:.0f} s)")
    orders = "select count(*), sum(hashtext(o::text)::bigint) from shop.orders_2024 o"
    before = database.sql(orders)

    with traffic(database, cloud.directory / "logs" / "traffic.log"):
        say("\n== 2. What would happen: a dry run ==")
        failover = {
            **experiment("demo-failover", "Failover under load", [{"fault": "rds-failover"}], approvalRequired=True),
            "dataCheck": {"database": DATABASE}}
        planned = stage.run("ChaosExperiment", {**failover, "dryRun": True})
        check(planned["status"] == "SUCCEEDED", f"the dry run ended {planned}")
        for line in planned["output"]["lines"]:
            say(f"  {line}")

        say("\n== 3. It asks for an approval, gets it, and the database fails over ==")
        follower = Follower(stage, stage.start("ChaosExperiment", failover))
        waiting = follower.until("awaiting-approval")
        say(f"  {APPROVER} approves plan {waiting['planHash'][:16]}…, which {REQUESTER} asked for")
        answer = approve(stage, follower.operation, waiting["planHash"], key)
        say(f"            {answer['counted']} of {answer['needed']} approvals count")
        follower.until("ended")
        ended = stage.finish(follower.execution)
        report = show(stage, follower.operation)
        check(ended["status"] == "SUCCEEDED" and report["status"] == "completed", f"it ended {ended}")
        # Of a table in which customers delete while the counters start anew, nothing tells.
        check(report["metrics"]["dataIntegrity"] is not False, "the data was not found intact")
        check({one["verdict"] for one in report["after"]} == {"passed"}, "something acknowledged is lost")
        check(report["data"]["verdict"] in ("intact", "untold"), f"the rows: {report['data']}")
        check(database.sql(orders) == before, "rows that nobody writes to are not what they were")
        say("  digest     of shop.orders_2024, which nobody writes to: the same before and after")

        say("\n== 4. The next one stops the database; the emergency stop ends it in the middle ==")
        outage = experiment("demo-outage", "The database is stopped", [{"fault": "rds-stop"}])
        follower = Follower(stage, stage.start("ChaosExperiment", {**outage, "parameters": {
            **outage["parameters"], "duration": 300_000}}))
        follower.until("observing")
        time.sleep(2)
        stopped = ask(stage, "emergencyStop", {"by": REQUESTER, "reason": "customers are calling"})
        say(f"  {time.monotonic() - follower.begun:5.1f} s   EMERGENCY STOP by {REQUESTER}: " + ", ".join(
            f"{one['region']} {one['status']}" for one in stopped["regions"]))
        follower.until("ended")
        stage.finish(follower.execution)
        report = show(stage, follower.operation)
        check(report["status"] == "aborted" and report["rollbackExecuted"], f"it ended {report['status']}")

        refused = stage.run("ChaosExperiment", outage)
        check(refused.get("error") == "Dr.EmergencyStopActive", f"another one was not refused: {refused}")
        say(f"  refused    another experiment: {refused['error']}")
        ask(stage, "liftEmergencyStop", {"by": REQUESTER, "reason": "they are happy again"})
        say(f"  lifted     by {REQUESTER}")
        until("the database takes orders again", lambda: database.sql("select 1"))
    left = stage.leftovers()
    check(not left, f"left behind: {', '.join(left)}")
    say(f"\nEverything is as it was, and nothing was left behind. ({time.monotonic() - begun:.0f} s in all)")


def main() -> int:
    terminate_as_interrupt()
    try:
        with LocalCloud(HERE.parent.parent / ".local-cloud") as cloud:
            run(cloud)
        return 0
    except (CloudError, DeploymentError, StageError, TimeoutError) as error:
        say(f"demo-chaos: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo-chaos: interrupted; everything is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())

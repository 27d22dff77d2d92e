"""Shows an execution while it runs: each state as it is left, with when it was entered and how long it took."""

import time

ENTERED, EXITED = "stateEnteredEventDetails", "stateExitedEventDetails"
# A state that takes longer than this is shown when it is entered, too.
PATIENCE_S = 1.5


class Watch:
    """Follows an execution and the executions that it starts, and counts what they cost."""

    def __init__(self, stage, execution: str, say, on_enter=None):
        self._stage, self._say, self._on_enter = stage, say, on_enter or (lambda state: None)
        self._begun = time.monotonic()
        self._followed = [_Followed(execution, "")]
        self.transitions, self.repeated = 0, 0

    def follow(self, seconds: float) -> dict:
        """Shows everything until the execution ends; returns its description."""
        execution = self._followed[0].execution
        deadline = time.monotonic() + seconds
        states = self._stage.cloud.client("stepfunctions")
        while True:
            status = states.describe_execution(executionArn=execution)["status"]
            for followed in list(self._followed):
                self._show(followed)
            if status != "RUNNING":
                return self._stage.finish(execution, 1)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{execution} still runs after {seconds:.0f} s")
            time.sleep(0.2)

    def _show(self, followed: "_Followed") -> None:
        events = self._stage.history(followed.execution)
        for event in events[followed.seen:]:
            self._event(followed, event)
        followed.seen = len(events)
        if "ValidateBackup" in followed.open:
            self._child(followed)
        for name, entered in followed.open.items():
            if not entered["shown"] and time.monotonic() - entered["noticed"] > PATIENCE_S:
                entered["shown"] = True
                self._say(f"{self._clock(entered)}  {followed.indent}{name} ...")

    def _event(self, followed: "_Followed", event: dict) -> None:
        if ENTERED in event:
            name = event[ENTERED]["name"]
            self.transitions += 1
            self.repeated += name in followed.entered
            followed.entered.add(name)
            followed.open[name] = {"at": event["timestamp"], "noticed": time.monotonic(), "shown": False}
            followed.began = followed.began or event["timestamp"]
            self._on_enter(name)
        elif EXITED in event and event[EXITED]["name"] in followed.open:
            name = event[EXITED]["name"]
            entered = followed.open.pop(name)
            took = (event["timestamp"] - entered["at"]).total_seconds()
            if took >= 0.01:
                self._say(f"{self._clock(entered)}  {followed.indent}{name:<28} {took:6.2f} s")

    def _child(self, followed: "_Followed") -> None:
        """The execution of prove_backup that ValidateBackup started."""
        known = {other.execution for other in self._followed}
        started = self._stage.cloud.client("stepfunctions").list_executions(
            stateMachineArn=self._stage.outputs["ProveBackupArn"])["executions"]
        for execution in started:
            began = followed.open["ValidateBackup"]["at"]
            if execution["executionArn"] not in known and execution["startDate"] >= began:
                self._followed.append(_Followed(execution["executionArn"], followed.indent + "  | "))

    def _clock(self, entered: dict) -> str:
        began = self._followed[0].began
        return f"{(entered['at'] - began).total_seconds():7.1f} s"


class _Followed:
    """One execution and how much of its history was shown."""

    def __init__(self, execution: str, indent: str):
        self.execution, self.indent = execution, indent
        self.seen, self.open, self.began, self.entered = 0, {}, None, set()

"""What the benchmarks share: running things, medians of interleaved runs, figures with what is asked of them."""

import json
import platform
import resource
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results.json"


@dataclass
class Figure:
    """One number, and what is asked of it."""

    what: str
    value: float
    unit: str
    # At most (or at least) so much; None where nothing is asked.
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least

    def asked(self) -> str:
        if self.most is not None:
            return f"at most {self.most:g} {self.unit}".strip()
        return "" if self.least is None else f"at least {self.least:g} {self.unit}".strip()


@dataclass
class Section:
    """The figures of one benchmark, with how they came about."""

    name: str
    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str = "", **asked) -> None:
        self.figures.append(Figure(what, value, unit, **asked))

    def show(self) -> None:
        print(f"\n{self.title}")
        for figure in self.figures:
            verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
            print(f"  {figure.what:<66} {figure.value:>10.4g} {figure.unit:<6} {figure.asked():<22} {verdict}")
        for note in self.notes:
            print(f"  ({note})")

    def keep(self) -> None:
        """Writes it into the results, in the place of its last run."""
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[self.name] = {
            "title": self.title, "how": self.how, "notes": self.notes, "measured": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "figures": [{"what": f.what, "value": float(f"{f.value:.4g}"), "unit": f.unit, "asked": f.asked(), "met": f.met}
                        for f in self.figures]}
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def machine() -> str:
    """The processors and the load on them."""
    text = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(("model name", "CPU part"))]
    load = Path("/proc/loadavg").read_text().split()[0]
    return f"{len(models)} × {models[0] if models else platform.machine()}, Linux {platform.release()}, load {load}"


def interleaved(rounds: int, *tasks) -> list[list]:
    """Runs the tasks in turn, so that whatever else the machine does meets all of them; the results of each."""
    results = [[] for _ in tasks]
    for _ in range(rounds):
        for task, kept in zip(tasks, results, strict=True):
            kept.append(task())
    return results


def median(values) -> float:
    return statistics.median(values)


def ratio(ones, others) -> float:
    """The median of the ratios of runs that were made right after each other."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def children_seconds() -> float:
    """Processor time of all processes that we started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list, **options) -> subprocess.CompletedProcess:
    """Runs a command; what it printed is shown when it fails."""
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, stdin=subprocess.DEVNULL,
                          check=False, **options)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def write_page(page: Path, names: Iterable[str]) -> None:
    """Writes docs/benchmarks.md from the results of the last run of each of the benchmarks, in this order."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    lines = ["# What was measured", "",
             "Written by `make bench`; one benchmark alone: `make bench ONLY=digest`. Each figure is a median of runs that were",
             "interleaved with what they are compared with. The date and the machine are each benchmark's own.", ""]
    for name in names:
        if name not in results:
            continue
        kept = results[name]
        lines += [f"## {kept['title']}", "", kept["how"], "",
                  f"{kept['measured']}, {kept['machine']}. Again: `make bench ONLY={name}`.", "",
                  "| figure | measured | asked | |", "| --- | --- | --- | --- |"]
        for figure in kept["figures"]:
            verdict = {True: "met", False: "**missed**", None: ""}[figure["met"]]
            lines.append(f"| {figure['what']} | {figure['value']:,.4g} {figure['unit']} | {figure['asked']} | {verdict} |")
        lines += ["", *(f"{note}\n" for note in kept["notes"])]
    if missing := [name for name in names if name not in results]:
        lines += ["## Not run to the end yet", "", *(f"- `make bench ONLY={name}`" for name in missing)]
    page.write_text("\n".join(lines).rstrip() + "\n")

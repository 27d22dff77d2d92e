"""Cold start and size of the functions as they are deployed: release binaries, from exec to the first poll.

The Lambda runtime's API is a socket that accepts, reads the first request and looks at the process behind it.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from measure import HERE, ROOT, Section, interleaved, median
from servers import BenchError

RELEASE = ROOT / ".aws-sam" / "release"
MIB = 1 << 20


def bootstraps() -> dict[str, Path]:
    """The functions that `make build` has built, by the name of their crate."""
    found = {}
    for crate in sorted(path.parent.name for path in (ROOT / "functions").glob("*/Cargo.toml")):
        logical = "".join(part.title() for part in crate.split("_")) + "Function"
        binary = RELEASE / logical / "bootstrap"
        if not binary.exists():
            raise BenchError(f"{binary} is missing: `make build` first")
        found[crate] = binary
    return found


def first_poll(command: list[str]) -> tuple[float, int]:
    """Milliseconds from exec to the first poll, and the most memory that the process has had by then, in KiB."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(30)
        port = listener.getsockname()[1]
        environment = {
            "PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}", "AWS_LAMBDA_FUNCTION_NAME": "bench",
            "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024", "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_LOG_GROUP_NAME": "g", "AWS_LAMBDA_LOG_STREAM_NAME": "s", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_EC2_METADATA_DISABLED": "true",
            "DR_STATE_TABLE_NAME": "table", "DR_METADATA_BUCKET": "bucket", "PYTHONDONTWRITEBYTECODE": ""}
        begun = time.perf_counter()
        # Without closing descriptors Python starts it by vfork, which costs this big process nothing.
        process = subprocess.Popen(command, env=environment, close_fds=False, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(4096)
                took = time.perf_counter() - begun
                if not request.startswith(b"GET /2018-06-01/runtime/invocation/next"):
                    raise BenchError(f"{command[0]} asked for {request[:80]!r}")
                status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return took * 1000, int(peak)


def cold_start(rounds: int = 21) -> Section:
    section = Section("cold-start", "Cold start", (
        "From exec to the first poll of the runtime API on 127.0.0.1, release binaries, files in the page cache, against a "
        "Python function that imports boto3 and makes the same clients (`bench/function.py`)."))
    binaries = bootstraps()
    python = [sys.executable, "-I", str(HERE / "function.py")]
    first_poll(python)
    tasks = [lambda command=command: first_poll(command) for command in ([str(path)] for path in binaries.values())]
    *ours, theirs = interleaved(rounds, *tasks, lambda: first_poll(python))
    their_ms, their_kib = median(ms for ms, _ in theirs), median(kib for _, kib in theirs)
    for crate, runs in zip(binaries, ours, strict=True):
        section.add(f"`{crate}`", median(ms for ms, _ in runs), "ms", most=12)
    slowest = max(median(ms for ms, _ in runs) for runs in ours)
    largest = max(median(kib for _, kib in runs) for runs in ours)
    section.add("the Python function", their_ms, "ms")
    section.add("times quicker than Python, the slowest function", their_ms / slowest, "×", least=20)
    section.add("peak memory of the largest function", largest / 1024, "MiB")
    section.add("peak memory of the Python function", their_kib / 1024, "MiB")
    section.add("part of Python's memory, the largest function", largest / their_kib, "×", most=0.5)
    section.notes.append("Quickest runs: " + ", ".join(
        f"`{crate}` {min(ms for ms, _ in runs):.1f} ms" for crate, runs in zip(binaries, ours, strict=True)) + ".")
    return section


def size() -> Section:
    section = Section("size", "Size", "Stripped binaries of `make build`, before they are packed.")
    for crate, path in bootstraps().items():
        section.add(f"`{crate}`", path.stat().st_size / MIB, "MiB", most=7 if crate == "update_state" else 10)
    return section

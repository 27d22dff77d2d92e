"""A PostgreSQL server for a measurement: its own data directory, a Unix socket and a port of 127.0.0.1; and the processor
time of what it does, so that what else the machine does disturbs little.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

CACHE = Path(os.environ.get("LIFEBOAT_CACHE") or Path.home() / ".cache" / "lifeboat")
NOBODY = 65534
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something that a measurement needs is missing or failed; the text says what."""


def installed() -> list[int]:
    """The major versions that `make setup` has installed."""
    return sorted(int(path.name) for path in (CACHE / "postgresql").glob("[0-9][0-9]"))


class Server:
    """A server in `directory`, until the `with` block ends."""

    def __init__(self, major: int, directory: Path, settings: dict[str, str] | None = None):
        self.major, self.directory = major, directory
        self.bin = CACHE / "postgresql" / str(major) / "bin"
        self.data = directory / "data"
        self.socket = directory / "socket"
        # Below the range from which the system takes the ports of outgoing connections.
        self.port = random.randrange(20_000, 32_000)
        self._settings = {"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off",
                          "max_connections": "60", "unix_socket_directories": str(self.socket),
                          "listen_addresses": "127.0.0.1", "port": str(self.port), "jit": "off", **(settings or {})}
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        self.socket.mkdir(parents=True)
        self.data.mkdir()
        for path in (self.directory, self.data, self.socket):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
            path.chmod(0o700)
        self.tool("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> "Server":
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_server(self.bin / "postgres", "-D", self.data, *options), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd="/", start_new_session=True)
        deadline = time.monotonic() + 60
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"PostgreSQL {self.major} does not start:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        return False

    @staticmethod
    def _as_server(*command) -> list[str]:
        command = [str(part) for part in command]
        if os.geteuid() != 0:
            return command
        # PostgreSQL refuses to run as root; what root alone may enter stays readable.
        return ["setpriv", "--pdeathsig", "KILL", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                "--securebits=+no_setuid_fixup", "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override",
                "--", *command]

    def tool(self, name: str, *arguments) -> str:
        """Runs one of the server's own tools under its account; returns what it printed."""
        done = subprocess.run(self._as_server(self.bin / name, *arguments), cwd="/", text=True, capture_output=True,
                              check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
        if done.returncode:
            raise BenchError(f"{name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def environment(self, database: str = "postgres") -> dict[str, str]:
        """libpq's variables for this server."""
        return {**os.environ, "PGHOST": str(self.socket), "PGUSER": "postgres", "PGDATABASE": database, "PGPORT": str(self.port)}

    def command(self, program: str, *arguments) -> list[str]:
        """The command line of a client."""
        return [str(self.bin / program), *map(str, arguments)]

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Runs statements in one session; returns what they print, unaligned."""
        parts = [part for statement in statements for part in ("-c", statement)]
        done = subprocess.run(self.command("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *parts), text=True,
                              env=self.environment(database), stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise BenchError(f"psql ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def spent(self) -> float:
        """Seconds of processor time of all sessions that have ended; waits until every client's session has."""
        deadline = time.monotonic() + 30
        while self._sessions():
            if time.monotonic() > deadline:
                raise BenchError("a session does not end")
            time.sleep(0.01)
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / TICKS

    def _sessions(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        found = 0
        for child in children:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_text()
                # Processes of the server's own say what they are; a session says where its client is.
                found += "[local]" in title or "127.0.0.1" in title or not title
        return found

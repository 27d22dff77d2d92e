"""What reading costs the database: digests against a scan, pg_dump and reladiff; memory; the source under load."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT, Section, children_seconds, interleaved, median, ratio, run
from servers import BenchError, Server, installed

MAJORS = (17, 18)

WIDE = """create table wide (id bigint primary key, a int, b int, c bigint, d numeric(12,2), e text, f text, g varchar(40),
  h timestamptz, i date, j boolean, k double precision, last text);
insert into wide select k, k % 1000, (k::bigint * 7919) % 100000, k::bigint * 1000003, (k % 100000) / 7.0, md5(k::text),
  repeat('lorem ipsum ', 1 + k % 8), 'name ' || k, '2024-01-01'::timestamptz + k * interval '1 s',
  '2024-01-01'::date + (k % 3000), k % 3 = 0, k / 3.0, 'last column value ' || (k % 1000)
  from generate_series(1, {rows}) k;"""
NARROW = """create table narrow (id bigint primary key, a int, b text, last int);
insert into narrow select k, k % 1000, md5(k::text), k % 77 from generate_series(1, {rows}) k;"""


@contextlib.contextmanager
def server(major: int, settings: dict[str, str] | None = None):
    directory = Path(tempfile.mkdtemp(prefix="lifeboat-bench-"))
    try:
        directory.chmod(0o755)
        with Server(major, directory / "server", settings) as started:
            yield started
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def frame_binary() -> Path:
    """The program of this directory, built with optimisation and without the linker's last minutes."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    environment = {**os.environ, "CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16"}
    run(["cargo", "build", "--locked", "--quiet", "--release", "-p", "bench-frame"], cwd=ROOT,
        env=environment)
    return target / "release" / "bench-frame"


def frame(binary: Path, at: Server, database: str, connections: int, *pace) -> dict:
    told = json.loads(run([binary, at.socket, at.port, database, connections, *pace]).stdout)
    if told["left"] or told["unreadable"]:
        raise BenchError(f"not everything was read: {told}")
    return told


def cost(at: Server, task) -> tuple[float, float, float]:
    """Seconds of a task: of the server's processors, of the clients', by the clock."""
    before, client, begun = at.spent(), children_seconds(), time.monotonic()
    task()
    took, clients = time.monotonic() - begun, children_seconds() - client
    return at.spent() - before, clients, took


def digest(rounds: int = 5) -> Section:
    section = Section("digest", "Digest", (
        "A whole frame (plan, digests below the horizon, heartbeat) of one table in the page cache, by the code that runs in "
        "`validate_backup`, beside a scan that reads the last column, and `pg_dump | sha256sum`. Processor time of the "
        "server's backends; for pg_dump also of its clients."))
    binary = frame_binary()
    for major in MAJORS:
        if major not in installed():
            raise BenchError(f"PostgreSQL {major} is not installed: `make setup`")
        # A table of more than a quarter of the buffers would be read around them; one of less than some units of 64 MB
        # could not be shared out between connections.
        with server(major, {"shared_buffers": "2GB"}) as at:
            for name, definition, rows in (("wide", WIDE, 1_800_000), ("narrow", NARROW, 4_500_000)):
                at.sql(f"create database {name}")
                at.sql(definition.format(rows=rows), "vacuum freeze", database=name)
                megabytes = int(at.sql(f"select pg_table_size('{name}')", database=name)) / 1e6
                scan = at.command("psql", "-XqAt", "-d", name, "-c", "set max_parallel_workers_per_gather = 0", "-c",
                                  f"select count(last) from {name}")

                def dump(name=name):
                    dumping = subprocess.Popen(at.command("pg_dump", "-t", name, "-d", name), env=at.environment(name),
                                               stdout=subprocess.PIPE)
                    subprocess.run(["sha256sum"], stdin=dumping.stdout, stdout=subprocess.DEVNULL, check=True)
                    if dumping.wait():
                        raise BenchError("pg_dump failed")
                scans, ones, twos, dumps = interleaved(
                    rounds,
                    lambda scan=scan, name=name: cost(at, lambda: run(scan, env=at.environment(name))),
                    lambda name=name: cost(at, lambda: frame(binary, at, name, 1)),
                    lambda name=name: cost(at, lambda: frame(binary, at, name, 2)),
                    lambda: cost(at, dump))
                label = f"PostgreSQL {major}, {name} rows ({megabytes:.0f} MB)"
                asked = {"most": 8} if name == "wide" else {}
                section.add(f"{label}: server time against a scan of the last column",
                            ratio([run_[0] for run_ in ones], [run_[0] for run_ in scans]), "×", **asked)
                section.add(f"{label}: all processor time against `pg_dump \\| sha256sum`",
                            ratio([run_[0] + run_[1] for run_ in ones], [run_[0] + run_[1] for run_ in dumps]), "×",
                            **({"most": 0.75} if name == "wide" else {}))
                section.add(f"{label}: two connections, times quicker than one",
                            ratio([run_[2] for run_ in ones], [run_[2] for run_ in twos]), "×",
                            **({"least": 1.6} if name == "wide" else {}))
                section.add(f"{label}: server time for a gigabyte", median(run_[0] for run_ in ones) / megabytes * 1000, "s")
                with contextlib.suppress(BenchError):
                    theirs = [cost(at, lambda name=name: reladiff(at, name)) for _ in range(min(rounds, 3))]
                    section.add(f"{label}: server time of two digests against reladiff of two copies",
                                2 * median(run_[0] for run_ in ones) / median(run_[0] for run_ in theirs), "×")
                    section.add(f"{label}: all processor time of two digests against reladiff of two copies",
                                2 * median(run_[0] + run_[1] for run_ in ones)
                                / median(run_[0] + run_[1] for run_ in theirs), "×")
                at.sql(f"drop database {name}")
    section.notes.append(
        "Two connections are as quick as the machine has processors to spare: the clock, not processor time, is compared.")
    return section


def reladiff(at: Server, name: str) -> None:
    """reladiff between the table and a copy of it in the same server, which it finds equal."""
    sys.path.insert(0, str(ROOT / "tests" / "local-cloud"))
    from setup_tools import environment
    tool = environment(ROOT / "bench" / "requirements.txt", "reladiff") / "bin" / "reladiff"
    if not at.sql("select to_regclass('copy') is not null", database=name) == "t":
        at.sql(f"create table copy as table {name}", "alter table copy add primary key (id)", "vacuum freeze copy",
               database=name)
    url = f"postgresql://postgres:none@127.0.0.1:{at.port}/{name}"
    done = run([tool, url, name, url, "copy", "-k", "id", "-c", "%"])
    if done.stdout.strip():
        raise BenchError(f"reladiff found differences between equal tables: {done.stdout[:200]}")


def memory() -> Section:
    section = Section("memory", "Memory against size", (
        "The process that frames, two connections: a table of 1 GB and one of 20 GB. The larger one is the smaller one's file "
        "twenty times over, by hard links, so that every page is read and every row digested, without the disk for it."))
    binary = frame_binary()
    with server(17, {"full_page_writes": "off"}) as at:
        # Whole segments: rows of one kind until the first gigabyte is full, the rest cut off.
        at.sql("create table small (id bigint, pad text)",
               "insert into small select k, repeat('x', 980) from generate_series(1, 930000) k", "vacuum freeze small",
               "create table large (id bigint, pad text)", "checkpoint")
        oid = at.sql("select oid from pg_database where datname = 'postgres'")
        small, large = (at.sql(f"select pg_relation_filenode('{name}')") for name in ("small", "large"))
        at.stop()
        base = at.data / "base" / oid
        first = base / small
        os.truncate(first, 1 << 30)
        for path in base.glob(f"{small}.*"):
            path.unlink()
        for path in (*base.glob(f"{small}_*"), *base.glob(f"{large}_*"), base / large):
            path.unlink(missing_ok=True)
        for segment in range(20):
            os.link(first, base / (f"{large}.{segment}" if segment else large))
        at.start()
        results = {}
        for name, other in (("small", "large"), ("large", "small")):
            # What is in Lifeboat's own schema is left out of a frame.
            at.sql("create schema if not exists lifeboat", f"alter table {other} set schema lifeboat")
            results[name] = frame(binary, at, "postgres", 2)
            at.sql(f"alter table lifeboat.{other} set schema public")
    for told in results.values():
        section.add(f"{told['bytes'] / 1e9:.1f} GB, {told['rows']:,} rows, {told['units']} units: peak memory",
                    told["peakKib"] / 1024, "MiB")
        section.add(f"{told['bytes'] / 1e9:.1f} GB: took", told["seconds"], "s")
    section.add("growth of memory from 1 GB to 20 GB",
                (results["large"]["peakKib"] - results["small"]["peakKib"]) / 1024, "MiB", most=2)
    return section


def overhead(rounds: int = 3, seconds: int = 8) -> Section:
    section = Section("overhead", "The source while it is framed", (
        f"pgbench (TPC-B-like, 4 clients, {seconds} s, in the page cache, without fsync) with nothing beside it, while another "
        "database of the same server is framed over two connections, and while it is framed at 16 MiB/s. Server, pgbench and "
        "frames share the machine's processors, so this is the worst case: on RDS only the server's part remains."))
    binary = frame_binary()
    with server(17) as at:
        at.sql("create database load")
        at.sql("create database wide")
        run(at.command("pgbench", "-i", "-q", "-s", "10", "load"), env=at.environment("load"))
        at.sql(WIDE.format(rows=400_000), "vacuum freeze", database="wide")

        def load(beside: list | None) -> tuple[float, float]:
            framing = None
            with tempfile.TemporaryDirectory() as scratch:
                if beside:
                    # Over and over, for as long as pgbench takes.
                    loop = ["sh", "-c", 'while "$@" > /dev/null; do :; done', "loop", *map(str, beside)]
                    framing = subprocess.Popen(loop, start_new_session=True)
                try:
                    done = run(at.command("pgbench", "-n", "-c", "4", "-T", str(seconds), "--log", "--log-prefix",
                                          f"{scratch}/log", "load"), env=at.environment("load"))
                finally:
                    if framing:
                        os.killpg(framing.pid, 9)
                        framing.wait()
                latencies = sorted(int(line.split()[2]) for path in Path(scratch).glob("log*")
                                   for line in path.read_text().splitlines())
            [tps] = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("tps = ")]
            return tps, latencies[int(len(latencies) * 0.99)] / 1000
        command = [binary, at.socket, at.port, "wide", 2]
        alone, framed, paced = interleaved(rounds, lambda: load(None), lambda: load(command), lambda: load([*command, 16]))
    section.add("alone: transactions a second", median(tps for tps, _ in alone))
    section.add("alone: 99th percentile", median(p99 for _, p99 in alone), "ms")
    for name, runs in (("framed", framed), ("framed at 16 MiB/s", paced)):
        section.add(f"{name}: part of the transactions", ratio([tps for tps, _ in runs], [tps for tps, _ in alone]), "×")
        section.add(f"{name}: 99th percentile", median(p99 for _, p99 in runs), "ms")
    return section

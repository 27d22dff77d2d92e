"""However rds-local ends, no server outlives it; and it says plainly why it does not start."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness import Region, poll, processes_in


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_it(start, how):
    server = start("--status-ms", "10")
    region = Region(server, "us-east-1")
    region.begin_instance("one")
    region.begin_instance("two", EngineVersion="14")
    region.wait_instance("one")
    region.wait_instance("two")
    assert len(processes_in(server.data)) > 8
    code = server.stop(how)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    poll(lambda: processes_in(server.data), lambda left: left == [])
    if how != signal.SIGKILL:
        assert not (server.data / "endpoint.json").exists()
        for name in region_dirs(server):
            assert not (name / "data/postmaster.pid").exists(), "it was stopped cleanly"


def region_dirs(server):
    return list((server.data / "regions").glob("*/instances/*"))


def test_a_server_frozen_when_everything_is_killed_is_killed_too(start):
    server = start("--status-ms", "10")
    region = Region(server, "us-east-1")
    region.instance("one")
    for pid in region.state()["instances"]["one"]["pids"]:
        os.kill(pid, signal.SIGSTOP)
    server.stop(signal.SIGKILL)
    poll(lambda: processes_in(server.data), lambda left: left == [])


def test_an_instance_that_is_just_starting_is_killed_too(start):
    server = start()
    region = Region(server, "us-east-1")
    region.begin_instance("one")
    poll(lambda: processes_in(server.data), bool)
    server.stop(signal.SIGKILL)
    poll(lambda: processes_in(server.data), lambda left: left == [])


def test_the_next_run_begins_empty_in_the_same_place(program, start):
    first = start("--status-ms", "10")
    region = Region(first, "us-east-1")
    region.instance("one")
    second = subprocess.run([program, "--data", first.data], capture_output=True, text=True, timeout=30)
    assert second.returncode == 2 and "another rds-local is using it" in second.stderr
    assert region.psql("one", "select 1").value == "1"
    first.stop(signal.SIGKILL)
    poll(lambda: processes_in(first.data), lambda left: left == [])
    again = type(first)(first.directory, program=program)
    try:
        assert again.client("us-east-1").describe_db_instances()["DBInstances"] == []
        assert region_dirs(again) == []
    finally:
        again.stop()


def test_health_tells_its_process(start):
    server = start()
    assert server.control("GET", "health") == (200, {"status": "ok", "pid": server.process.pid})
    assert server.endpoint["pid"] == server.process.pid
    assert Path(server.ca_file).read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_wrong_starts_say_why(program, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("mine")
    for arguments, reason in [
        ([], "--data is missing"),
        (["--data", str(tmp_path / "foreign")], "letter.txt"),
        (["--data", str(tmp_path / "new"), "--postgres", "/nowhere"], "/nowhere"),
        (["--data", str(tmp_path / "new"), "--listen", "0.0.0.0:0"], "loopback"),
        (["--data", str(tmp_path / "new"), "--aws-endpoint", "ftp://x"], "--aws-endpoint"),
    ]:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and reason in done.stderr, (arguments, done.stderr)
    assert (tmp_path / "foreign" / "letter.txt").read_text() == "mine"
    absent = os.environ | {"HOME": str(tmp_path), "LIFEBOAT_CACHE": str(tmp_path), "RDS_LOCAL_POSTGRES": ""}
    done = subprocess.run([program, "--data", str(tmp_path / "new")], capture_output=True, text=True, env=absent)
    assert done.returncode == 2 and "make setup" in done.stderr

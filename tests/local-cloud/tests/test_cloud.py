"""The life of a cloud: beside another one, and to its end, however that comes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cloud import CloudError, LocalCloud, alive, start_time
from conftest import until

CLOUD = Path(__file__).resolve().parent.parent / "cloud.py"
# Starts a cloud and a warm function in it, tells the pids of both, and waits to be ended.
OWNER = """
import json, signal, sys, time
sys.path[:0] = [{directory!r}, {tests!r}]
from cloud import LocalCloud, terminate_as_interrupt
# A shell may have it ignored in what it starts in the background, and so in everything below.
signal.signal(signal.SIGINT, signal.default_int_handler)
terminate_as_interrupt()
with LocalCloud({state!r}, rds={rds!r}) as cloud:
    import io, zipfile
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        bootstrap = zipfile.ZipInfo("bootstrap")
        bootstrap.external_attr = 0o755 << 16
        package.writestr(bootstrap, "#!" + sys.executable + "\\n" + open({function!r}).read())
    role = cloud.client("iam").create_role(RoleName="none", AssumeRolePolicyDocument=json.dumps({{
        "Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": "sts:AssumeRole",
                                                "Principal": {{"Service": "lambda.amazonaws.com"}}}}]}}))["Role"]["Arn"]
    functions = cloud.client("lambda")
    functions.create_function(FunctionName="f", Runtime="provided.al2023", Handler="bootstrap", Role=role,
                              Code={{"ZipFile": archive.getvalue()}})
    functions.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={{"Delay": 1}})
    warm = json.loads(functions.invoke(FunctionName="f", Payload=b"{{}}")["Payload"].read())["pid"]
    print(json.dumps(cloud.description()["pids"] + [warm]), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path, rds_server):
    """A process that has a cloud and a warm function; and all their processes, by id and start time."""
    script = OWNER.format(directory=str(CLOUD.parent), tests=str(Path(__file__).parent), state=str(tmp_path / "cloud"),
                          rds=rds_server.url, function=str(Path(__file__).with_name("function.py")))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, process_group=0)
    line = process.stdout.readline()
    assert line, f"the owner ended with {process.wait()}"
    members = [(pid, start_time(pid)) for pid in json.loads(line)]
    yield process, members
    for pid, started in members:
        if alive(pid, started):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


def all_gone(members):
    return not any(alive(pid, started) for pid, started in members)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_owner_of_a_cloud(owner, number):
    process, members = owner
    assert len(members) == 2
    assert all(alive(pid, started) for pid, started in members)
    process.send_signal(number)
    process.wait(30)
    until(lambda: all_gone(members), "the end of every process")


def test_ctrl_c_in_a_terminal_ends_a_cloud_in_good_order(owner, tmp_path):
    process, members = owner
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    until(lambda: all_gone(members), "the end of every process")
    assert not (tmp_path / "cloud" / "cloud.json").exists()
    assert not (tmp_path / "cloud" / "tmp").exists()
    assert (tmp_path / "cloud" / "logs" / "ministack.log").exists()


def test_a_killed_cloud_takes_its_functions_along(owner):
    process, members = owner
    os.kill(members[0][0], signal.SIGKILL)
    until(lambda: not alive(*members[1]), "the end of the function")


def test_two_clouds_run_side_by_side_and_share_nothing(cloud, tmp_path, rds_server):
    with LocalCloud(tmp_path, rds=rds_server.url) as other:
        assert other.endpoint != cloud.endpoint
        other.client("sqs").create_queue(QueueName="only-in-the-other")
        assert not cloud.client("sqs").list_queues(QueueNamePrefix="only-in-the-other").get("QueueUrls")
        assert len(other.client("sqs").list_queues()["QueueUrls"]) == 1


def test_a_second_cloud_in_the_same_directory_is_refused(cloud):
    with pytest.raises(CloudError, match="running in .* already"):
        LocalCloud(cloud.directory, rds=None).start()
    assert cloud.client("sts").get_caller_identity()["Account"] == cloud.account


def test_a_process_that_cannot_start_is_told_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("RDS_LOCAL_BINARY", "/bin/false")
    monkeypatch.setattr("cloud.postgresql_roots", lambda: [Path("/nowhere")])
    with pytest.raises(CloudError, match="rds-local ended with 1 while starting"):
        LocalCloud(tmp_path).start()
    assert not (tmp_path / "cloud.json").exists()


def command(*arguments, directory):
    return subprocess.run([sys.executable, CLOUD, *arguments, "--dir", directory], text=True, capture_output=True,
                          check=False)


def test_up_status_env_and_down_from_the_command_line(tmp_path, rds_server):
    assert command("status", directory=tmp_path).returncode == 1
    up = command("up", "--rds", rds_server.url, directory=tmp_path)
    try:
        assert up.returncode == 0, up.stderr
        told = json.loads((tmp_path / "cloud.json").read_text())
        assert told["endpoint"] in up.stdout
        assert command("status", directory=tmp_path).returncode == 0
        assert command("up", directory=tmp_path).returncode == 1
        exported = command("env", directory=tmp_path).stdout
        assert f"export AWS_ENDPOINT_URL={told['endpoint']}" in exported
        aws = Path(sys.executable).with_name("aws")
        found = subprocess.run(["bash", "-c", f"{exported}\n{aws} sts get-caller-identity --query Account"], text=True,
                               capture_output=True, check=True)
        assert json.loads(found.stdout) == told["account"]
    finally:
        down = command("down", directory=tmp_path)
    assert down.stdout == "Stopped: ministack.\n"
    assert all_gone([(process["pid"], process["started"]) for process in told["processes"].values()])
    assert command("down", directory=tmp_path).stdout == "Nothing was running.\n"


def test_status_shows_the_log_of_what_died(tmp_path, rds_server):
    assert command("up", "--rds", rds_server.url, directory=tmp_path).returncode == 0
    [process] = json.loads((tmp_path / "cloud.json").read_text())["processes"].values()
    os.kill(process["pid"], signal.SIGKILL)
    until(lambda: not alive(**process), "its end")
    status = command("status", directory=tmp_path)
    assert status.returncode == 1
    assert "ministack  DEAD" in status.stdout
    assert "Running on http://127.0.0.1" in status.stdout
    command("down", directory=tmp_path)


def test_an_accounts_variables_do_not_reach_the_cloud(tmp_path, monkeypatch, rds_server):
    monkeypatch.setenv("AWS_PROFILE", "production")
    with LocalCloud(tmp_path, rds=rds_server.url) as cloud:
        [pid] = cloud.description()["pids"]
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert not [entry for entry in environment if entry.startswith(b"AWS_PROFILE")]
        assert b"AWS_ACCESS_KEY_ID=test" in environment

"""What rds-local asks the rest of the cloud: KMS about keys, Secrets Manager to keep master passwords.

The neighbour here is a small HTTP server that remembers; the real MiniStack is met in the tests of the local cloud.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import ACCOUNT, Region, poll, wire_error


class Neighbour:
    def __init__(self):
        self.keys = {}
        self.secrets = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                region = self.headers["Authorization"].split("Credential=")[1].split("/")[2]
                target = self.headers["X-Amz-Target"].split(".")[1]
                status, answer = outer.answer(region, target, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, region, target, body):
        if target == "DescribeKey":
            state = self.keys.get((region, body["KeyId"].split("/")[-1]))
            if state is None:
                return 400, {"__type": "NotFoundException", "message": "no such key"}
            arn = f"arn:aws:kms:{region}:{ACCOUNT}:key/{body['KeyId'].split('/')[-1]}"
            return 200, {"KeyMetadata": {"Arn": arn, "KeyState": state}}
        if target == "CreateSecret":
            arn = f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{body['Name']}-AbCdEf"
            self.secrets[arn] = json.loads(body["SecretString"])
            return 200, {"ARN": arn}
        if target == "PutSecretValue":
            self.secrets[body["SecretId"]] = json.loads(body["SecretString"])
            return 200, {"ARN": body["SecretId"]}
        if target == "DeleteSecret":
            del self.secrets[body["SecretId"]]
            return 200, {}
        return 400, {"__type": "UnknownOperationException"}


@pytest.fixture
def neighbour():
    neighbour = Neighbour()
    yield neighbour
    neighbour.server.shutdown()
    neighbour.server.server_close()


def test_keys_must_be_there_and_enabled(start, neighbour):
    server = start("--aws-endpoint", neighbour.url, "--status-ms", "10")
    home, away = Region(server, "us-east-1"), Region(server, "us-west-2")
    neighbour.keys = {("us-west-2", "good"): "Enabled", ("us-west-2", "off"): "Disabled"}
    neighbour.keys[("us-west-2", "going")] = "PendingDeletion"
    home.instance("orders")
    source = home.snapshot("shot", "orders")["DBSnapshotArn"]
    for key, fine in [("good", True), ("off", False), ("going", False), ("absent", False)]:
        wanted = {
            "SourceDBSnapshotIdentifier": source,
            "TargetDBSnapshotIdentifier": f"copy-{key}",
            "KmsKeyId": f"arn:aws:kms:us-west-2:{ACCOUNT}:key/{key}",
        }
        if fine:
            away.client.copy_db_snapshot(**wanted)
            assert away.wait_snapshot(f"copy-{key}")["KmsKeyId"].endswith(f"key/{key}")
        else:
            assert wire_error(away.client.copy_db_snapshot, **wanted)[:2] == ("KMSKeyNotAccessibleFault", 400), key
    assert list(away.state()["snapshots"]) == ["copy-good"]


def test_a_managed_master_password_is_kept_rotated_and_removed(start, neighbour):
    region = Region(start("--aws-endpoint", neighbour.url, "--status-ms", "10"), "us-east-1")
    secret = region.instance("orders", ManageMasterUserPassword=True, MasterUserPassword=None)["MasterUserSecret"]
    assert secret["SecretStatus"] == "active"
    kept = neighbour.secrets[secret["SecretArn"]]
    assert kept["username"] == "boss"
    assert region.psql("orders", "select 1", password=kept["password"]).value == "1"
    own = {"DBInstanceIdentifier": "orders", "MasterUserPassword": "my-own-Secret"}
    assert wire_error(region.client.modify_db_instance, **own)[:2] == ("InvalidParameterCombination", 400)
    region.client.modify_db_instance(
        DBInstanceIdentifier="orders", RotateMasterUserPassword=True, ApplyImmediately=True
    )
    region.wait_instance("orders")
    rotated = neighbour.secrets[secret["SecretArn"]]
    assert rotated["password"] != kept["password"]
    assert region.psql("orders", "select 1", password=rotated["password"]).value == "1"
    assert not region.psql("orders", "select 1", password=kept["password"]).fine
    region.client.delete_db_instance(DBInstanceIdentifier="orders", SkipFinalSnapshot=True)
    region.wait_gone("orders")
    poll(lambda: neighbour.secrets, lambda left: left == {})


def test_without_a_neighbour_managed_passwords_are_refused_and_nothing_is_left(region):
    refused = wire_error(region.begin_instance, "orders", ManageMasterUserPassword=True, MasterUserPassword=None)
    assert refused[:2] == ("InternalFailure", 500) and "--aws-endpoint" in refused[2]
    assert region.state()["instances"] == {}

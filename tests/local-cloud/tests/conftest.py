"""One local cloud for the tests of the mends, with a small double in the place of rds-local."""

import http.server
import io
import json
import sys
import threading
import time
import urllib.parse
import uuid
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cloud import LocalCloud  # noqa: E402

FUNCTION = Path(__file__).with_name("function.py")
ANYTHING = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]


@dataclass
class RdsDouble:
    """Records requests, and answers with what the test set; None hangs up without an answer.

    ListTagsForResource is not recorded: a resource has the tags of `tags`, by its ARN.
    """

    url: str = ""
    requests: list[dict] = field(default_factory=list)
    status: int = 200
    answer: str | None = "<Empty/>"
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    def told_of(self, arn: str) -> str:
        """The answer to ListTagsForResource."""
        tags = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"
                       for key, value in self.tags.get(arn, {}).items())
        return (f'<ListTagsForResourceResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/">'
                f"<ListTagsForResourceResult><TagList>{tags}</TagList></ListTagsForResourceResult>"
                f"</ListTagsForResourceResponse>")


@pytest.fixture(scope="session")
def rds_server():
    double = RdsDouble()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = dict(urllib.parse.parse_qsl(body.decode()))
            if asked.get("Action") == "ListTagsForResource":
                return self.tell(200, double.told_of(asked["ResourceName"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            double.requests.append({"headers": headers, "body": body.decode(), "path": self.path})
            if double.answer is None:
                self.close_connection = True
                return None
            return self.tell(double.status, double.answer)

        def tell(self, status, text):
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield double
    server.shutdown()


@pytest.fixture
def rds(rds_server):
    rds_server.requests.clear()
    rds_server.tags.clear()
    rds_server.status, rds_server.answer = 200, "<Empty/>"
    return rds_server


@pytest.fixture(scope="session")
def cloud(tmp_path_factory, rds_server):
    with LocalCloud(tmp_path_factory.mktemp("cloud"), rds=rds_server.url) as cloud:
        yield cloud


def until(probe, what: str, seconds: float = 120):
    """Calls `probe` until it gives something true; after `seconds` the failure tells its last value."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s; last: {value!r}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="session")
def role(cloud):
    """Makes a role with these statements; returns its ARN."""
    def make(statements: list[dict]) -> str:
        name = f"role-{uuid.uuid4().hex[:12]}"
        iam = cloud.client("iam")
        trust = {"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": ["states.amazonaws.com", "lambda.amazonaws.com"], "AWS": "*"}}]}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="it", PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": statements}))
        return arn
    return make


@pytest.fixture(scope="session")
def client_as(cloud, role):
    """A client of a service with the rights of a fresh role."""
    def make(service: str, *statements: dict, region: str = "us-east-1"):
        session = cloud.client("sts").assume_role(RoleArn=role(list(statements)), RoleSessionName="test")["Credentials"]
        return boto3.client(
            service, region_name=region, endpoint_url=cloud.endpoint, aws_access_key_id=session["AccessKeyId"],
            aws_secret_access_key=session["SecretAccessKey"], aws_session_token=session["SessionToken"])
    return make


@pytest.fixture(scope="session")
def all_powerful(role):
    return role(ANYTHING)


@pytest.fixture
def machine(cloud, all_powerful):
    """Makes a JSONata state machine of these states, beginning with the first; returns its ARN."""
    def make(states: dict, *, role: str = all_powerful, **fields) -> str:
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **fields}
        return cloud.client("stepfunctions").create_state_machine(
            name=f"machine-{uuid.uuid4().hex[:12]}", definition=json.dumps(definition), roleArn=role,
        )["stateMachineArn"]
    return make


@pytest.fixture
def start(cloud):
    def run(arn: str, data=None) -> str:
        return cloud.client("stepfunctions").start_execution(
            stateMachineArn=arn, input=json.dumps({} if data is None else data))["executionArn"]
    return run


@pytest.fixture
def ended(cloud):
    """Waits until an execution is over; returns its description, with the output decoded."""
    def wait(arn: str) -> dict:
        states = cloud.client("stepfunctions")

        def over():
            described = states.describe_execution(executionArn=arn)
            return described if described["status"] != "RUNNING" else None

        described = until(over, f"the end of {arn}")
        if described["status"] == "SUCCEEDED":
            described["output"] = json.loads(described["output"])
        return described
    return wait


@pytest.fixture
def run(machine, start, ended):
    """Makes a machine, runs it with an input, waits for the end."""
    return lambda states, data=None, **fields: ended(start(machine(states, **fields), data))


@pytest.fixture(scope="session")
def function(cloud, role):
    """Deploys `function.py` as a custom runtime, which is what a Rust function is; returns its name."""
    def make(statements: list[dict]) -> str:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as package:
            bootstrap = zipfile.ZipInfo("bootstrap")
            bootstrap.external_attr = 0o755 << 16
            package.writestr(bootstrap, f"#!{sys.executable}\n{FUNCTION.read_text()}")
        name = f"function-{uuid.uuid4().hex[:12]}"
        functions = cloud.client("lambda")
        functions.create_function(FunctionName=name, Runtime="provided.al2023", Handler="bootstrap", Timeout=60,
                                  Role=role(statements), Code={"ZipFile": archive.getvalue()})
        functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        return name
    return make


@pytest.fixture(scope="session")
def echo(function):
    """The name of a function that may do nothing."""
    return function([])

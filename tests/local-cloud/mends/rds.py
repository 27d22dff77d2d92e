"""Sends every call of the RDS API to rds-local, which has real databases behind it.

Two ways lead to RDS in MiniStack: requests (SDKs, CLI, functions) and `aws-sdk:rds:*` tasks of state machines. The
authorisation of requests stays with MiniStack, before they come here.
"""

import asyncio
import datetime
import http.client
import logging
import urllib.parse

import botocore.config
import botocore.exceptions
import botocore.session
from ministack import app
from ministack.core.responses import get_region
from ministack.services import stepfunctions as sfn

logger = logging.getLogger("rds")
ANSWER_WITHIN_S = 120
# Headers of one connection, which are not for the next.
_OF_THE_CONNECTION = {"connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"}


def _beyond_connection(headers) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _OF_THE_CONNECTION}


def _forward(host: str, port: int):
    """The handler of the service `rds`: the request as it came, its Authorization header too (it names the Region)."""

    def send(method: str, target: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_WITHIN_S)
        try:
            connection.request(method, target, body=body, headers=_beyond_connection(headers.items()))
            answer = connection.getresponse()
            return answer.status, _beyond_connection(answer.getheaders()), answer.read()
        except (OSError, http.client.HTTPException) as error:
            # What a load balancer answers when the service behind it hangs up: SDKs retry it like a cut connection.
            # The body is empty, because SDKs refuse one that is not XML instead.
            logger.warning("no answer from the RDS API at %s:%s: %r", host, port, error)
            return 502, {}, b""
        finally:
            connection.close()

    async def handle(method, path, headers, body, query_params):
        query = urllib.parse.urlencode(query_params or {}, doseq=True)
        return await asyncio.to_thread(send, method, f"{path}?{query}" if query else path, headers, body)

    return handle


def to_api(value, shape, what: str):
    """Names of the Java SDK, which tasks use (DbInstanceIdentifier), to those of the API (DBInstanceIdentifier)."""
    if shape.type_name == "structure" and isinstance(value, dict):
        members = {name.lower(): name for name in shape.members}
        renamed = {}
        for name, part in value.items():
            member = members.get(name.lower())
            if member is None:
                raise sfn._ExecutionError("States.Runtime", f"The field '{name}' is not supported by {what}")
            renamed[member] = to_api(part, shape.members[member], f"{what}.{name}")
        return renamed
    if shape.type_name == "list" and isinstance(value, list):
        return [to_api(part, shape.member, what) for part in value]
    return value


def _to_task(value):
    """The other way; instants become text, as Step Functions writes them."""
    if isinstance(value, dict):
        return {sfn._api_name_to_sfn_key(name): _to_task(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_to_task(part) for part in value]
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def _error_name(model, code: str) -> str:
    """Rds. and the exception class of the Java SDK: DBSnapshotNotFound on the wire is DbSnapshotNotFoundException."""
    shape = next((shape for shape in model.error_shapes
                  if shape.metadata.get("error", {}).get("code", shape.name) == code), None)
    if shape is None:
        return "Rds.RdsException"
    name = sfn._api_name_to_sfn_key(shape.name).removesuffix("Fault")
    return f"Rds.{name}" if name.endswith("Exception") else f"Rds.{name}Exception"


def _tasks(dispatch_query, endpoint: str):
    """`aws-sdk:rds:<action>` with the names, types and errors that AWS has. MiniStack mangles several of them."""
    session = botocore.session.get_session()
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=ANSWER_WITHIN_S)

    def mended(service_info, service_name, action, arguments):
        if service_name != "rds":
            return dispatch_query(service_info, service_name, action, arguments)
        client = session.create_client("rds", region_name=get_region(), endpoint_url=endpoint, config=config,
                                       aws_access_key_id="states", aws_secret_access_key="states")
        model = client.meta.service_model
        operation = operation_of(model, action)
        shape = model.operation_model(operation).input_shape
        try:
            answer = client._make_api_call(operation, to_api(arguments or {}, shape, operation))
        except botocore.exceptions.ClientError as error:
            name = _error_name(model, error.response["Error"].get("Code", ""))
            raise sfn._ExecutionError(name, error.response["Error"].get("Message", str(error))) from error
        except botocore.exceptions.ParamValidationError as error:
            raise sfn._ExecutionError("States.Runtime", str(error)) from error
        except botocore.exceptions.BotoCoreError as error:
            raise sfn._ExecutionError("Rds.SdkClientException", str(error)) from error
        answer.pop("ResponseMetadata", None)
        return _to_task(answer)

    return mended


def operation_of(model, action: str) -> str:
    """createDBSnapshot or createDbSnapshot -> CreateDBSnapshot."""
    for name in model.operation_names:
        if name.lower() == action.lower():
            return name
    raise sfn._ExecutionError("States.Runtime", f"The RDS API has no action '{action}'")


def apply(endpoint: str) -> None:
    url = urllib.parse.urlsplit(endpoint)
    app.SERVICE_HANDLERS["rds"] = _forward(url.hostname, url.port)
    sfn._dispatch_aws_sdk_query = _tasks(sfn._dispatch_aws_sdk_query, endpoint)

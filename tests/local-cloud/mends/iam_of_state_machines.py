"""Tasks run with the permissions of the state machine's role, and of nothing else.

MiniStack lets a state machine do anything. Here each task is checked against the role before it runs, with the action
and the resource that AWS checks. In force with AUTH=true, as the rest of IAM.
"""

import re

import botocore.session
from ministack import app
from ministack.core import iam_evaluator
from ministack.core.lambda_runtime import execution_credentials
from ministack.core.responses import get_account_id, get_region
from ministack.services import stepfunctions as sfn

from . import execution, iam_of_rds, rds

INTEGRATION = re.compile(r"arn:aws:states:::(?P<sdk>aws-sdk:)?(?P<service>\w+):(?P<action>\w+)")
SERVICE_OF_SDK = {"sfn": "states", "eventbridge": "events", "cloudwatchlogs": "logs", "cloudwatch": "cloudwatch"}
ERROR_OF_SERVICE = {"lambda": "Lambda.AWSLambdaException", "dynamodb": "DynamoDB.AmazonDynamoDBException",
                    "sns": "SNS.AmazonSNSException", "sqs": "SQS.AmazonSQSException",
                    "s3": "S3.S3Exception", "states": "StepFunctions.AWSStepFunctionsException", "events": "Events.EventsException"}
MANAGED_RULE = "StepFunctionsGetEventsForStepFunctionsExecutionRule"


def _qualified(prefix: str, name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:{prefix}{name}"


def needed(resource: str, arguments) -> list[tuple[str, str]]:
    """The pairs of IAM action and resource ARN that a task needs."""
    given = arguments if isinstance(arguments, dict) else {}
    here = f"{get_region()}:{get_account_id()}"
    if ":function:" in resource and not resource.startswith("arn:aws:states:::"):
        return [("lambda:InvokeFunction", resource)]
    match = INTEGRATION.match(resource)
    if not match:
        return []
    service, action = match["service"], match["action"][0].upper() + match["action"][1:]
    service = SERVICE_OF_SDK.get(service, service) if match["sdk"] else service
    if service == "rds":
        return _of_rds(match["action"], given)
    if service == "lambda" and action in ("Invoke", "InvokeFunction"):
        name = given.get("FunctionName", "")
        return [("lambda:InvokeFunction", _qualified(f"lambda:{here}:function:", name))]
    if service == "dynamodb":
        return [(f"dynamodb:{action}", _qualified(f"dynamodb:{here}:table/", given.get("TableName", "*")))]
    if service == "events" and action == "PutEvents":
        buses = {entry.get("EventBusName", "default") for entry in given.get("Entries", [{}])}
        return [("events:PutEvents", _qualified(f"events:{here}:event-bus/", bus)) for bus in sorted(buses)]
    if service == "states" and action == "StartExecution":
        checks = [("states:StartExecution", given.get("StateMachineArn", "*"))]
        if ".sync" in resource:
            # AWS refuses to create a machine whose role lacks these: it follows the child through a managed rule.
            rule = f"arn:aws:events:{here}:rule/{MANAGED_RULE}"
            checks += [(f"events:{name}", rule) for name in ("PutTargets", "PutRule", "DescribeRule")]
        return checks
    if service == "s3" and "Bucket" in given:
        return [(f"s3:{action}", f"arn:aws:s3:::{given['Bucket']}/{given.get('Key', '*')}")]
    for name in ("TopicArn", "StateMachineArn", "ExecutionArn", "KeyId"):
        value = given.get(name)
        if isinstance(value, str) and value.startswith("arn:"):
            return [(f"{service}:{action}", value)]
    return [(f"{service}:{action}", "*")]


def _of_rds(action: str, given: dict) -> list[tuple[str, str]]:
    model = botocore.session.get_session().get_service_model("rds")
    operation = rds.operation_of(model, action)
    parameters = rds.to_api(given, model.operation_model(operation).input_shape, operation)
    return iam_of_rds.resources(operation, parameters.get, bool(parameters.get("Tags")), get_region(),
                                get_account_id())


def check(resource: str, arguments) -> None:
    """Raises the task's error if the role of the running state machine may not do it."""
    running = execution.current()
    machine = sfn._state_machines.get(sfn._resolve_state_machine_arn(running["stateMachineArn"])) if running else None
    if machine is None or not app.AUTH:
        return
    role = machine["roleArn"]
    name = machine["name"]
    credentials = execution_credentials({
        "Role": role, "FunctionName": name,
        "FunctionArn": f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:states-{name}"})
    for action, arn in needed(resource, arguments):
        service = action.split(":")[0]
        denied = iam_evaluator.enforce(credentials["AWS_ACCESS_KEY_ID"], action, service, get_region(),
                                       resource_arn=arn)
        if denied:
            who = f"arn:aws:sts::{get_account_id()}:assumed-role/{role.rsplit('/', 1)[-1]}/{running['name']}"
            raise sfn._ExecutionError(
                ERROR_OF_SERVICE.get(service, f"{service.capitalize()}.{service.capitalize()}Exception"),
                f"User: {who} is not authorized to perform: {action} on resource: {arn} because no identity-based "
                f"policy allows the {action} action (Status Code: 403, Error Code: AccessDeniedException)")


def _checked(invoke):
    def mended(resource, arguments, *rest):
        check(resource, arguments)
        return invoke(resource, arguments, *rest)

    return mended


def apply() -> None:
    sfn._invoke_resource = _checked(sfn._invoke_resource)

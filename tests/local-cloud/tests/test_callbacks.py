"""Tasks that wait for a token, and what a throttled function is to a state machine."""

import json
import uuid

import botocore.exceptions
import pytest
from conftest import ANYTHING, until

INVOKE = "arn:aws:states:::lambda:invoke"
TOKEN = "{% $states.context.Task.Token %}"


@pytest.fixture(scope="module")
def caller(function):
    """A function that may do anything."""
    return function(ANYTHING)


@pytest.fixture
def queue(cloud):
    return cloud.client("sqs").create_queue(QueueName=f"tokens-{uuid.uuid4().hex[:8]}")["QueueUrl"]


@pytest.fixture
def token(cloud, queue):
    """Waits for the next token that a function was asked with."""
    def take() -> str:
        [message] = until(lambda: cloud.client("sqs").receive_message(
            QueueUrl=queue, VisibilityTimeout=600).get("Messages"), "a token")
        return message["Body"]
    return take


@pytest.fixture
def waiting(caller, queue):
    """A state that hands its token to a function, which puts it into the queue."""
    def make(**fields) -> dict:
        payload = {"call": ["sqs", "send_message", {"QueueUrl": queue, "MessageBody": TOKEN}]}
        return {"Ask": {"Type": "Task", "Resource": f"{INVOKE}.waitForTaskToken",
                        "Arguments": {"FunctionName": caller, "Payload": payload}, "End": True, **fields}}
    return make


@pytest.fixture
def states(cloud):
    return cloud.client("stepfunctions")


def code(call, **parameters) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"]


def test_a_task_goes_on_with_the_answer_to_its_token_and_only_with_the_first(states, machine, start, ended, waiting, token):
    execution = start(machine(waiting(TimeoutSeconds=120)))
    given = token()
    assert code(states.send_task_success, taskToken=given, output="{no json") == "InvalidOutput"
    states.send_task_success(taskToken=given, output='{"approvedBy": ["a"]}')
    assert code(states.send_task_success, taskToken=given, output="1") == "TaskTimedOut"
    done = ended(execution)
    assert (done["status"], done["output"]) == ("SUCCEEDED", {"approvedBy": ["a"]})
    assert code(states.send_task_failure, taskToken=given) == "TaskTimedOut"
    assert code(states.send_task_success, taskToken="nonsense", output="1") == "InvalidToken"


def test_a_task_fails_with_the_answer_to_its_token(states, machine, start, ended, waiting, token):
    execution = start(machine(waiting()))
    states.send_task_failure(taskToken=token(), error="Refused", cause="not today")
    done = ended(execution)
    assert (done["status"], done["error"], done["cause"]) == ("FAILED", "Refused", "not today")


def test_a_function_may_answer_before_it_returns(run, caller):
    payload = {"call": ["stepfunctions", "send_task_success", {"taskToken": TOKEN, "output": '"at once"'}]}
    done = run({"Ask": {"Type": "Task", "Resource": f"{INVOKE}.waitForTaskToken", "TimeoutSeconds": 30, "End": True,
                        "Arguments": {"FunctionName": caller, "Payload": payload}}})
    assert done["output"] == "at once"


@pytest.mark.parametrize("limit", [1, "{% $states.input.seconds %}"])
def test_nobody_answers_in_time(states, machine, start, ended, waiting, token, limit):
    execution = start(machine(waiting(TimeoutSeconds=limit)), {"seconds": 1})
    done = ended(execution)
    assert (done["status"], done["error"]) == ("FAILED", "States.Timeout")
    assert code(states.send_task_success, taskToken=token(), output="1") == "TaskTimedOut"


def test_a_limit_that_is_no_number_of_seconds_is_refused(run, waiting):
    assert run(waiting(TimeoutSeconds="{% 'soon' %}"))["error"] == "States.QueryEvaluationError"


def test_a_limit_of_any_task_may_be_an_expression(run, echo):
    done = run({"Slow": {"Type": "Task", "Resource": INVOKE, "TimeoutSeconds": "{% $states.input.seconds %}", "End": True,
                         "Arguments": {"FunctionName": echo, "Payload": {"sleep": 3}}}}, {"seconds": 1})
    assert done["error"] == "States.Timeout"


def test_signs_of_life_keep_a_task_until_they_stop(states, machine, start, ended, waiting, token):
    execution = start(machine(waiting(TimeoutSeconds=120, HeartbeatSeconds=5)))
    given = token()
    states.send_task_heartbeat(taskToken=given)
    assert ended(execution)["error"] == "States.HeartbeatTimeout"


def test_a_function_that_fails_fails_the_task(run, echo):
    done = run({"Ask": {"Type": "Task", "Resource": f"{INVOKE}.waitForTaskToken", "TimeoutSeconds": 30, "End": True,
                        "Arguments": {"FunctionName": echo, "Payload": {
                            "fail": "cannot ask", "errorType": "Dr.NotAsked", "token": TOKEN}}}})
    assert done["error"] == "Dr.NotAsked"


def test_each_attempt_has_a_token_of_its_own(states, machine, start, ended, waiting, token):
    execution = start(machine(waiting(TimeoutSeconds=120, Retry=[
        {"ErrorEquals": ["Again"], "MaxAttempts": 1, "IntervalSeconds": 1}])))
    first = token()
    states.send_task_failure(taskToken=first, error="Again")
    second = token()
    assert first != second
    assert code(states.send_task_success, taskToken=first, output="1") == "TaskTimedOut"
    states.send_task_success(taskToken=second, output="2")
    assert ended(execution)["output"] == 2


def test_a_stopped_execution_waits_for_no_answer(states, machine, start, ended, waiting, token):
    execution = start(machine(waiting()))
    given = token()
    states.stop_execution(executionArn=execution)
    assert ended(execution)["status"] == "ABORTED"
    assert code(states.send_task_heartbeat, taskToken=given) == "TaskTimedOut"


def test_an_answer_needs_a_permission(client_as, machine, start, ended, waiting, token):
    execution = start(machine(waiting(TimeoutSeconds=30)))
    given = token()
    allowed = {"Effect": "Allow", "Action": "states:SendTaskSuccess", "Resource": "*"}
    mine = {**allowed, "Resource": execution.replace(":execution:", ":stateMachine:").rpartition(":")[0]}
    assert code(client_as("stepfunctions").send_task_success, taskToken=given, output="1") == "AccessDeniedException"
    assert code(client_as("stepfunctions", mine).send_task_success, taskToken=given, output="1") == "AccessDeniedException"
    client_as("stepfunctions", allowed).send_task_success(taskToken=given, output="1")
    assert ended(execution)["status"] == "SUCCEEDED"


def test_asking_needs_the_permission_of_the_state_machine(run, role, waiting):
    assert run(waiting(TimeoutSeconds=5), role=role([]))["error"] == "Lambda.AWSLambdaException"


def test_orders_reach_a_task_that_waits(cloud, machine, start, ended, waiting, token):
    arn = machine(waiting(TimeoutSeconds=30))
    name = f"ordered-{uuid.uuid4().hex[:8]}"
    cloud.order("orders", {"execution": name, "state": "Ask", "effect": {"lose": {"error": "States.Timeout"}}})
    execution = cloud.client("stepfunctions").start_execution(stateMachineArn=arn, name=name)["executionArn"]
    assert ended(execution)["error"] == "States.Timeout"
    assert token()


def test_a_function_without_concurrency_refuses(cloud, run, function):
    name, functions = function([]), cloud.client("lambda")
    assert "ReservedConcurrentExecutions" not in functions.get_function_concurrency(FunctionName=name)
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert functions.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 0
    with pytest.raises(functions.exceptions.TooManyRequestsException) as raised:
        functions.invoke(FunctionName=name, Payload=b"{}")
    assert raised.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    call = {"Type": "Task", "Resource": INVOKE, "Arguments": {"FunctionName": name, "Payload": {}}, "End": True}
    assert run({"Call": call})["error"] == "Lambda.TooManyRequestsException"
    asking = {**call, "Resource": f"{INVOKE}.waitForTaskToken", "TimeoutSeconds": 30,
              "Arguments": {"FunctionName": name, "Payload": {"token": TOKEN}}}
    assert run({"Ask": asking})["error"] == "Lambda.TooManyRequestsException"
    functions.delete_function_concurrency(FunctionName=name)
    answer = functions.invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())["pid"]

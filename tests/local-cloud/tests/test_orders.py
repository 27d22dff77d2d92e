"""Orders to Step Functions are carried out where, when and as often as they say; used permissions are recorded."""

import json
import uuid

import pytest
from cloud import CloudError
from conftest import until

INVOKE = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke"}
ALWAYS = [{"ErrorEquals": ["Test.Once", "Runtime.ExitError"], "IntervalSeconds": 1, "MaxAttempts": 3}]


@pytest.fixture(scope="module")
def lister(function):
    """A function that may list queues."""
    return function([{"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"}])


@pytest.fixture
def ordered(cloud, machine, ended):
    """Runs one Task with an order; returns the execution's end, the order and the errors of the task on the way."""
    def run(function, payload, **order):
        name, states = f"run-{uuid.uuid4().hex[:12]}", cloud.client("stepfunctions")
        cloud.order("orders", {"execution": name, "state": "Work", **order})
        arn = machine({"Work": {**INVOKE, "Arguments": {"FunctionName": function, "Payload": payload},
                                "Output": "{% $states.result.Payload %}", "Retry": ALWAYS, "End": True}})
        done = ended(states.start_execution(stateMachineArn=arn, name=name, input="{}")["executionArn"])
        history = states.get_execution_history(executionArn=done["executionArn"])["events"]
        failures = [event["taskFailedEventDetails"]["error"] for event in history if "taskFailedEventDetails" in event]
        [carried] = cloud.order(f"orders?execution={name}")
        cloud.order(f"orders?execution={name}", method="DELETE")
        return done, carried["carried"], failures
    return run


def invocations(cloud, function):
    """How often a function began, by its log."""
    logs = cloud.client("logs")
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{function}", filterPattern="START")["events"]
    return sum(event["message"].startswith("START") for event in events)


def test_a_task_is_failed_at_the_attempt_that_was_ordered(ordered, echo):
    done, carried, failures = ordered(echo, {}, count=2, effect={"raise": {"error": "Test.Once"}})
    assert (done["status"], carried, failures) == ("SUCCEEDED", 2, ["Test.Once", "Test.Once"])


def test_a_task_is_failed_for_good(ordered, echo):
    done, carried, failures = ordered(echo, {}, count=0, effect={"raise": {"error": "Test.Once", "cause": "why"}})
    assert (done["status"], done["error"], done["cause"], carried) == ("FAILED", "Test.Once", "why", 4)
    assert failures == ["Test.Once"] * 4


@pytest.mark.parametrize(("effect", "failures", "begun"), [
    ({"raise": {"error": "Test.Once"}}, ["Test.Once"], 1),
    ({"lose": {"error": "Test.Once"}}, ["Test.Once"], 2),
    ({"twice": True}, [], 2),
])
def test_the_function_is_really_invoked_or_not(cloud, ordered, echo, effect, failures, begun):
    before = invocations(cloud, echo)
    done, carried, seen = ordered(echo, {"x": 1}, effect=effect)
    assert (done["status"], carried, seen) == ("SUCCEEDED", 1, failures)
    assert invocations(cloud, echo) - before == begun


def test_a_function_is_killed_after_its_call_took_effect_and_before_it_hears_of_it(ordered, cloud, function):
    queue = f"queue-{uuid.uuid4().hex[:12]}"
    worker = function([{"Effect": "Allow", "Action": "sqs:CreateQueue", "Resource": "*"}])
    done, carried, failures = ordered(worker, {"call": ["sqs", "create_queue", {"QueueName": queue}]},
                                      effect={"killAtCall": 1})
    assert (done["status"], carried, failures) == ("SUCCEEDED", 1, ["Runtime.ExitError"])
    assert cloud.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]


def test_an_execution_is_stopped_while_its_function_works_on(cloud, ordered, echo):
    before = invocations(cloud, echo)
    done, carried, _ = ordered(echo, {}, effect={"stop": True})
    assert (done["status"], carried) == ("ABORTED", 1)
    until(lambda: invocations(cloud, echo) == before + 1, "the function's work")


def test_a_function_is_told_another_deadline(ordered, echo):
    done, *_ = ordered(echo, {}, effect={"secondsLeft": 30})
    assert 0 < done["output"]["secondsLeft"] <= 30
    done, *_ = ordered(echo, {}, attempt=2, effect={"secondsLeft": 30})
    assert 30 < done["output"]["secondsLeft"] <= 60


def test_something_is_asked_for_first_with_values_of_the_task(ordered, echo, rds):
    done, *_ = ordered(echo, {"a": {"b": "found"}}, effect={
        "first": {"url": rds.url, "body": {"what": "{Payload.a.b}", "as": "it is"}}})
    assert done["status"] == "SUCCEEDED"
    assert [json.loads(request["body"]) for request in rds.requests] == [{"what": "found", "as": "it is"}]


def test_orders_reach_a_child_by_its_parent(cloud, machine, ended, echo):
    states = cloud.client("stepfunctions")
    child = machine({"Work": {**INVOKE, "Arguments": {"FunctionName": echo, "Payload": {}}, "End": True}})
    parent = machine({"Run": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2",
                              "Arguments": {"StateMachineArn": child, "Input": {}}, "End": True}})
    name = f"run-{uuid.uuid4().hex[:12]}"
    cloud.order("orders", {"execution": name, "child": True, "state": "Work", "effect": {"raise": {"error": "Test.X"}}})
    done = ended(states.start_execution(stateMachineArn=parent, name=name, input="{}")["executionArn"])
    assert (done["status"], done["error"]) == ("FAILED", "States.TaskFailed") and "Test.X" in done["cause"]


def test_the_answer_of_a_function_that_fails_is_lost_too(ordered, echo):
    done, carried, failures = ordered(echo, {"fail": "no", "errorType": "Test.Refused"},
                                      effect={"lose": {"error": "Test.Once"}})
    assert (done["status"], done["error"], carried) == ("FAILED", "Test.Refused", 1)
    assert failures == ["Test.Once", "Test.Refused"]


def test_orders_reach_the_children_of_a_distributed_map_and_stopping_there_stops_it_all(cloud, machine, ended, echo):
    states = cloud.client("stepfunctions")
    work = {"Work": {**INVOKE, "Arguments": {"FunctionName": echo, "Payload": {}}, "End": True}}
    mapped = machine({"Each": {"Type": "Map", "Items": [1], "Label": "Each", "End": True, "ItemProcessor": {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": "Work", "States": work}}})
    for effect, status in (({"raise": {"error": "Test.X"}}, "FAILED"), ({"stop": True}, "ABORTED")):
        name = f"run-{uuid.uuid4().hex[:12]}"
        cloud.order("orders", {"execution": name, "state": "Work", "effect": effect})
        done = ended(states.start_execution(stateMachineArn=mapped, name=name, input="{}")["executionArn"])
        assert (done["status"], cloud.order(f"orders?execution={name}")[0]["carried"]) == (status, 1)


@pytest.mark.parametrize("order", [{}, {"execution": "x", "state": "Y"},
                                   {"execution": "x", "state": "Y", "effect": {"sing": True}}])
def test_a_malformed_order_is_refused(cloud, order):
    with pytest.raises(CloudError, match="400"):
        cloud.order("orders", order)


def test_used_permissions_are_recorded_with_the_decision(cloud, run, lister):
    cloud.order("calls", method="DELETE")
    for service, action in (("sqs", "list_queues"), ("sns", "list_topics")):
        run({"Work": {**INVOKE, "Arguments": {"FunctionName": lister, "Payload": {"call": [service, action, {}]}},
                      "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Over"}], "Next": "Over"},
             "Over": {"Type": "Succeed"}})
    role = cloud.client("lambda").get_function_configuration(FunctionName=lister)["Role"].rsplit("/", 1)[-1]
    found = {call["action"]: call["allowed"] for call in cloud.order("calls") if call["role"] == role}
    assert found["sqs:ListQueues"] is True and found["sns:ListTopics"] is False
    assert any(call["action"] == "lambda:InvokeFunction" for call in cloud.order("calls")), "the machine's own"

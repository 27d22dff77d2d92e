"""How executions end, and what their history tells."""

from conftest import until

WAIT = {"Type": "Wait", "Seconds": 4000}
INVOKE = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke"}


def history(cloud, arn):
    pages = cloud.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=arn)
    return [event for page in pages for event in page["events"]]


def entered(cloud, arn):
    return [event["stateEnteredEventDetails"]["name"] for event in history(cloud, arn)
            if "stateEnteredEventDetails" in event]


def test_an_execution_that_outlasts_its_limit_is_timed_out(run, cloud):
    done = run({"Wait": {**WAIT, "End": True}}, TimeoutSeconds=1)
    assert (done["status"], done["error"]) == ("TIMED_OUT", "States.Timeout")
    assert history(cloud, done["executionArn"])[-1]["type"] == "ExecutionTimedOut"


def test_an_execution_within_its_limit_is_left_alone(run):
    assert run({"Pass": {"Type": "Pass", "End": True}}, TimeoutSeconds=20)["status"] == "SUCCEEDED"


def test_a_stopped_execution_enters_no_further_state(cloud, machine, start, ended, echo):
    arn = start(machine({
        "Slow": {**INVOKE, "Arguments": {"FunctionName": echo, "Payload": {"sleep": 4, "fail": "too late"}},
                 "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "After"}], "Next": "After"},
        "After": {"Type": "Pass", "End": True}}))
    until(lambda: "Slow" in entered(cloud, arn), "Slow entered")
    cloud.client("stepfunctions").stop_execution(executionArn=arn, error="Test", cause="enough")
    assert ended(arn)["status"] == "ABORTED"
    until(lambda: any(event["type"] == "TaskFailed" for event in history(cloud, arn)), "the task's return")
    assert ended(arn)["status"] == "ABORTED"
    assert entered(cloud, arn) == ["Slow"]


def test_output_over_256_kib_fails_the_execution_past_any_catch(run, echo):
    def big(size):
        return {"Big": {**INVOKE, "Arguments": {"FunctionName": echo, "Payload": {"big": size}}, "End": True,
                        "Output": "{% $states.result.Payload %}",
                        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]},
                "Caught": {"Type": "Succeed"}}
    assert run(big(262_142))["status"] == "SUCCEEDED"
    done = run(big(262_143))
    assert (done["status"], done["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_a_runtime_error_is_not_caught_by_all(run):
    done = run({"Bad": {"Type": "Task", "Resource": "arn:aws:states:::athena:startQueryExecution", "End": True,
                        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]},
                "Caught": {"Type": "Succeed"}})
    assert (done["status"], done["error"]) == ("FAILED", "States.Runtime")


def test_history_tells_the_states_of_branches_in_one_sequence(run, cloud):
    def four(name):
        return {"StartAt": f"{name}0", "States": {
            f"{name}{n}": {"Type": "Pass", **({"End": True} if n == 3 else {"Next": f"{name}{n + 1}"})}
            for n in range(4)}}
    done = run({"All": {"Type": "Parallel", "End": True, "Branches": [four(name) for name in "abcd"]}})
    events = history(cloud, done["executionArn"])
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert sorted(entered(cloud, done["executionArn"])) == sorted(
        ["All", *(f"{name}{n}" for name in "abcd" for n in range(4))])

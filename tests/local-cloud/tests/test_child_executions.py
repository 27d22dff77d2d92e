"""`states:startExecution.sync:2`."""

import json

from conftest import until

SYNC = "arn:aws:states:::states:startExecution.sync:2"


def call(child, **fields):
    return {"Call": {"Type": "Task", "Resource": SYNC, "End": True,
                     "Arguments": {"StateMachineArn": child, "Input": {"a": 1}}, **fields}}


def test_the_output_of_a_child_is_json(run, machine):
    child = machine({"Done": {"Type": "Succeed", "Output": {"b": "{% $states.input.a + 1 %}"}}})
    output = run(call(child))["output"]
    assert output["Output"] == {"b": 2}
    assert (output["Status"], output["StateMachineArn"]) == ("SUCCEEDED", child)


def test_a_failed_child_is_task_failed_and_described_in_the_cause(run, machine):
    child = machine({"No": {"Type": "Fail", "Error": "Dr.BackupUnproven", "Cause": "page 3 is zero"}})
    done = run(call(child))
    assert (done["status"], done["error"]) == ("FAILED", "States.TaskFailed")
    told = json.loads(done["cause"])
    assert (told["Status"], told["Error"], told["Cause"]) == ("FAILED", "Dr.BackupUnproven", "page 3 is zero")
    assert told["ExecutionArn"].split(":")[5] == "execution"


def test_the_error_of_a_child_is_not_caught_by_its_own_name(run, machine):
    child = machine({"No": {"Type": "Fail", "Error": "Dr.BackupUnproven"}})
    states = call(child, Catch=[{"ErrorEquals": ["Dr.BackupUnproven"], "Next": "Wrong"},
                                {"ErrorEquals": ["States.TaskFailed"], "Next": "Right"}])
    states |= {"Wrong": {"Type": "Succeed", "Output": "wrong"},
               "Right": {"Type": "Succeed", "Output": "{% $parse($states.input.Cause).Error %}"}}
    assert run(states)["output"] == "Dr.BackupUnproven"


def test_stopping_the_parent_stops_the_child(cloud, machine, start, ended):
    states = cloud.client("stepfunctions")
    child = machine({"Wait": {"Type": "Wait", "Seconds": 4000, "End": True}})
    parent = start(machine(call(child)))
    [running] = until(lambda: states.list_executions(stateMachineArn=child)["executions"], "the child's start")
    states.stop_execution(executionArn=parent)
    assert ended(running["executionArn"])["status"] == "ABORTED"


def test_a_task_that_times_out_stops_the_child(cloud, run, machine, ended):
    child = machine({"Wait": {"Type": "Wait", "Seconds": 4000, "End": True}})
    done = run(call(child, TimeoutSeconds=1))
    assert done["error"] == "States.Timeout"
    [running] = cloud.client("stepfunctions").list_executions(stateMachineArn=child)["executions"]
    assert ended(running["executionArn"])["status"] == "ABORTED"

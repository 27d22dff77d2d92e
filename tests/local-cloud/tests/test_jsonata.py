"""JSONata in state machines: what MiniStack leaves out, and the features that our machines use."""

import json

import pytest

PASS = {"Type": "Pass", "End": True}


def branch(**states):
    return {"StartAt": next(iter(states)), "States": states}


def test_output_of_succeed_is_the_result(run):
    done = run({"Done": {"Type": "Succeed", "Output": {"sum": "{% $states.input.a + 1 %}"}}}, {"a": 2})
    assert done["output"] == {"sum": 3}


def test_succeed_without_output_passes_its_input_on(run):
    assert run({"Done": {"Type": "Succeed"}}, {"a": 2})["output"] == {"a": 2}


def test_parallel_has_arguments_assign_and_output(run):
    done = run({
        "Both": {"Type": "Parallel", "Arguments": {"n": "{% $states.input.a * 10 %}"},
                 "Branches": [branch(One={**PASS, "Output": "{% $states.input.n + 1 %}"}),
                              branch(Two={**PASS, "Output": "{% $states.input.n + 2 %}"})],
                 "Assign": {"first": "{% $states.result[0] %}"},
                 "Output": {"all": "{% $states.result %}", "given": "{% $states.input.a %}"}, "Next": "Tell"},
        "Tell": {**PASS, "Output": {"first": "{% $first %}", "before": "{% $states.input %}"}},
    }, {"a": 4})
    assert done["output"] == {"first": 41, "before": {"all": [41, 42], "given": 4}}


def test_a_branch_reads_the_variables_around_it_and_keeps_its_own(run):
    done = run({
        "Set": {"Type": "Pass", "Assign": {"seen": "outer"}, "Next": "Both"},
        "Both": {"Type": "Parallel", "Next": "Tell", "Branches": [
            branch(Change={"Type": "Pass", "Assign": {"seen": "inner"}, "Next": "Read"},
                   Read={**PASS, "Output": "{% $seen %}"}),
            branch(Only={**PASS, "Output": "{% $seen %}"})]},
        "Tell": {**PASS, "Output": {"branches": "{% $states.input %}", "outside": "{% $seen %}"}},
    })
    assert done["output"] == {"branches": ["inner", "outer"], "outside": "outer"}


def test_an_iteration_of_a_map_keeps_its_variables(run):
    done = run({
        "Set": {"Type": "Pass", "Assign": {"n": 0}, "Next": "Each"},
        "Each": {"Type": "Map", "Items": [1, 2], "Next": "Tell", "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            **branch(Change={"Type": "Pass", "Assign": {"n": "{% $n + $states.input %}"}, "Next": "Read"},
                     Read={**PASS, "Output": "{% $n %}"})}},
        "Tell": {**PASS, "Output": {"each": "{% $states.input %}", "outside": "{% $n %}"}},
    })
    assert done["output"] == {"each": [1, 2], "outside": 0}


def test_distributed_map_has_items_selector_assign_and_output(run):
    done = run({
        "Each": {"Type": "Map", "Items": "{% $states.input.list %}", "MaxConcurrency": "{% 1 + 1 %}",
                 "ItemSelector": {"item": "{% $states.context.Map.Item.Value %}", "add": "{% $states.input.add %}",
                                  "at": "{% $states.context.Map.Item.Index %}"},
                 "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                                   **branch(Add={**PASS, "Output": "{% $states.input.item + $states.input.add %}"})},
                 "Assign": {"count": "{% $count($states.result) %}"}, "Output": {"sums": "{% $states.result %}"},
                 "Next": "Tell"},
        "Tell": {**PASS, "Output": {"count": "{% $count %}", "out": "{% $states.input %}"}},
    }, {"list": [1, 2, 3], "add": 10})
    assert done["output"] == {"count": 3, "out": {"sums": [11, 12, 13]}}


def test_distributed_map_reads_its_items_from_s3_and_writes_its_results_there(run, cloud):
    s3, bucket = cloud.client("s3"), "map-results"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="items.json", Body=b'[{"n": 1}, {"n": 2}, {"n": 3}]')
    two = {"Type": "Choice", "Choices": [{"Condition": "{% $states.input.n = 2 %}", "Next": "Refuse"}], "Default": "Ten"}
    done = run({
        "Each": {"Type": "Map", "MaxConcurrency": 2, "ToleratedFailurePercentage": 100,
                 "ItemReader": {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSON"},
                                "Arguments": {"Bucket": bucket, "Key": "{% $states.input.key %}"}},
                 "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                                   **branch(Two=two, Refuse={"Type": "Fail", "Error": "Two", "Cause": "no"},
                                            Ten={**PASS, "Output": {"ten": "{% $states.input.n * 10 %}"}})},
                 "ResultWriter": {"Resource": "arn:aws:states:::s3:putObject",
                                  "WriterConfig": {"OutputType": "JSON", "Transformation": "COMPACT"},
                                  "Arguments": {"Bucket": bucket, "Prefix": "{% 'out/' & $states.input.key %}"}},
                 "Output": "{% $states.result %}", "End": True}}, {"key": "items.json"})
    assert done["status"] == "SUCCEEDED", done
    details = done["output"]["ResultWriterDetails"]
    assert details["Bucket"] == bucket and details["Key"].startswith("out/items.json/")

    def read(key):
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    files = read(details["Key"])["ResultFiles"]
    assert files["PENDING"] == []
    assert sorted(one["ten"] for one in read(files["SUCCEEDED"][0]["Key"])) == [10, 30]
    assert [one["Error"] for one in read(files["FAILED"][0]["Key"])] == ["Two"]


def test_a_map_that_may_not_read_its_items_is_refused(run, role, cloud):
    cloud.client("s3").create_bucket(Bucket="map-forbidden")
    done = run({"Each": {"Type": "Map", "End": True, "ItemReader": {
        "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSON"},
        "Arguments": {"Bucket": "map-forbidden", "Key": "items.json"}},
        "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                          **branch(One=PASS)}}}, role=role([]))
    assert (done["status"], done["error"]) == ("FAILED", "S3.S3Exception")
    assert "s3:GetObject on resource: arn:aws:s3:::map-forbidden/items.json" in done["cause"]


def test_a_child_of_a_distributed_map_is_an_execution_of_its_own(run):
    done = run({
        "Set": {"Type": "Pass", "Assign": {"outer": 1}, "Next": "Each"},
        "Each": {"Type": "Map", "Items": [1], "End": True, "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            **branch(Tell={**PASS, "Output": {"sees": "{% $exists($outer) %}",
                                              "id": "{% $states.context.Execution.Id %}"}})}},
    })
    [child] = done["output"]
    assert child["sees"] is False
    assert child["id"] != done["executionArn"]


def test_time_limit_of_a_task_may_be_an_expression(run, echo):
    done = run({"Slow": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True,
                         "TimeoutSeconds": "{% $states.input.limit %}",
                         "Arguments": {"FunctionName": echo, "Payload": {"sleep": 5}}}}, {"limit": 1})
    assert (done["status"], done["error"]) == ("FAILED", "States.Timeout")


def test_context_names_the_execution_and_its_start(run):
    done = run({"Tell": {**PASS, "Output": {"id": "{% $states.context.Execution.Id %}",
                                            "at": "{% $toMillis($states.context.Execution.StartTime) %}"}}})
    assert done["output"]["id"] == done["executionArn"]
    assert done["output"]["at"] == pytest.approx(done["startDate"].timestamp() * 1000, abs=1000)


def test_catch_has_output_and_assign_with_the_error(run, echo):
    done = run({
        "Fail": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True,
                 "Arguments": {"FunctionName": echo, "Payload": {"fail": "no such thing",
                                                                 "errorType": "Dr.SnapshotMissing"}},
                 "Catch": [{"ErrorEquals": ["Dr.SnapshotMissing"], "Next": "Tell",
                            "Assign": {"name": "{% $states.errorOutput.Error %}"},
                            "Output": {"said": "{% $parse($states.errorOutput.Cause).errorMessage %}",
                                       "given": "{% $states.input.a %}"}}]},
        "Tell": {**PASS, "Output": {"name": "{% $name %}", "was": "{% $states.input %}"}},
    }, {"a": 1})
    assert done["output"] == {"name": "Dr.SnapshotMissing", "was": {"said": "no such thing", "given": 1}}


def test_catch_without_output_hands_the_error_on(run, echo):
    done = run({
        "Fail": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True,
                 "Arguments": {"FunctionName": echo, "Payload": {"fail": "x", "errorType": "Dr.Any"}},
                 "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Tell"}]},
        "Tell": {"Type": "Succeed"}})
    assert done["output"]["Error"] == "Dr.Any"

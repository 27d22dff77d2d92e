"""The JSONata fields of Succeed, Parallel, distributed Map and Task that MiniStack passes over in silence."""

import copy
import json
import uuid

from ministack.services import s3
from ministack.services import stepfunctions as sfn

from . import iam_of_state_machines

RESULT_STATUSES = {"SUCCEEDED": ("SUCCEEDED",), "FAILED": ("FAILED", "TIMED_OUT", "ABORTED"), "PENDING": ()}


def _is_jsonata(state: dict, ctx: dict | None) -> bool:
    return sfn._state_query_language(state, ctx) == "JSONata"


def _succeed_output(apply_output_path):
    """Succeed's Output shapes the result of the execution or branch. MiniStack returns the input."""

    def mended(state, data, ctx=None):
        if state.get("Type") == "Succeed" and ctx is not None and _is_jsonata(state, ctx):
            return sfn._apply_jsonata_output(state, data, ctx, default=data)
        return apply_output_path(state, data, ctx)

    return mended


def _finish(state: dict, raw_input, ctx: dict, results: list):
    """Output and Assign of a state, both with its result as `$states.result`."""
    output = sfn._apply_jsonata_output(state, raw_input, ctx, result=results, default=results)
    sfn._apply_state_assign(state, raw_input, ctx, result=results)
    return output


def _parallel_fields(run_parallel_branches):
    """Parallel's Arguments are the branches' input; Output and Assign see the list of results. MiniStack has none."""

    def mended(state, raw_input, execution, ctx):
        if not _is_jsonata(state, ctx):
            return run_parallel_branches(state, raw_input, execution, ctx)
        here = dict(ctx["State"])
        plain = {key: value for key, value in state.items() if key not in ("Arguments", "Output", "Assign")}
        given = sfn._apply_jsonata_arguments(state, raw_input, ctx)
        results, following = run_parallel_branches(plain, given, execution, ctx)
        ctx["State"] = here
        return _finish(state, raw_input, ctx, results), following

    return mended


def _distributed_map_fields(run_distributed_map):
    """A distributed Map takes Items, shapes each with ItemSelector, and has Output and Assign, as an inline one. With a
    ResultWriter, its result is where the results were written.

    MiniStack reads the JSONPath names of these fields only, and writes no results. Its own function gets the finished
    items.
    """

    def mended(state, raw_input, effective, iterator, execution, ctx):
        if not _is_jsonata(state, ctx):
            return run_distributed_map(state, raw_input, effective, iterator, execution, ctx)
        items = _items(state, raw_input, effective, ctx)
        if "ItemSelector" in state:
            items = [_selected(state["ItemSelector"], index, item, raw_input, ctx)
                     for index, item in enumerate(items)]
        plain = {key: state[key] for key in ("Type", "Label", "Next", "End", "ItemProcessor") if key in state}
        for key in ("MaxConcurrency", "ToleratedFailureCount", "ToleratedFailurePercentage"):
            if key in state:
                plain[key] = sfn._jsonata_state_field(state, key, "number", raw_input, ctx)
        results, following = run_distributed_map(plain, items, items, iterator, execution, ctx)
        if "ResultWriter" in state:
            results = _written(state["ResultWriter"], execution, raw_input, ctx)
        return _finish(state, raw_input, ctx, results), following

    return mended


def _written(writer: dict, execution: dict, raw_input, ctx: dict) -> dict:
    """Files by the children's status, a manifest that lists them, and where it is. With `COMPACT` what succeeded is the
    children's outputs alone. Step Functions Developer Guide, "ResultWriter (Map)"."""
    given = sfn._apply_jsonata_template(writer.get("Arguments", {}), raw_input, ctx)
    run = [run for run in sfn._map_runs.values() if run["executionArn"] == execution["executionArn"]][-1]
    children = [child for child in list(sfn._executions.values()) if child.get("mapRunArn") == run["mapRunArn"]]
    compact = writer.get("WriterConfig", {}).get("Transformation", "NONE") == "COMPACT"
    folder = f"{given['Prefix'].rstrip('/')}/{uuid.uuid4()}"

    def put(name: str, content) -> dict:
        key, body = f"{folder}/{name}", json.dumps(content).encode()
        iam_of_state_machines.check(writer["Resource"], {"Bucket": given["Bucket"], "Key": key})
        status, _, answer = s3._put_object(given["Bucket"], key, body, {"content-type": "application/json"})
        if status >= 400:
            raise sfn._ExecutionError("States.ResultWriterFailed", str(answer))
        return {"Key": key, "Size": len(body)}

    files = {}
    for status, those in RESULT_STATUSES.items():
        found = [child for child in children if child["status"] in those]
        if status == "SUCCEEDED" and compact:
            found = [json.loads(child["output"]) for child in found]
        else:
            found = [{"ExecutionArn": child["executionArn"], "Input": child["input"], "Name": child["name"],
                      "Status": child["status"], "Error": child.get("error"), "Cause": child.get("cause")}
                     for child in found]
        files[status] = [put(f"{status}_0.json", found)] if found else []
    put("manifest.json", {"DestinationBucket": given["Bucket"], "MapRunArn": run["mapRunArn"], "ResultFiles": files})
    return {"MapRunArn": run["mapRunArn"],
            "ResultWriterDetails": {"Bucket": given["Bucket"], "Key": f"{folder}/manifest.json"}}


def _items(state: dict, raw_input, effective, ctx: dict) -> list:
    if "ItemReader" in state:
        reader = dict(state["ItemReader"])
        reader["Arguments"] = sfn._apply_jsonata_template(reader.get("Arguments", {}), raw_input, ctx)
        iam_of_state_machines.check(reader["Resource"], reader["Arguments"])
        return sfn._read_map_items(reader, effective, ctx)
    if "Items" in state:
        return sfn._jsonata_state_field(state, "Items", "array", raw_input, ctx)
    return raw_input if isinstance(raw_input, list) else [raw_input]


def _selected(selector, index: int, item, raw_input, ctx: dict):
    with_item = copy.copy(ctx)
    with_item["Map"] = {"Item": {"Index": index, "Value": item}}
    return sfn._apply_jsonata_template(selector, raw_input, with_item)


def _time_limits(execute_task):
    """A Task's TimeoutSeconds and HeartbeatSeconds may be expressions. MiniStack hands the text to a timer."""

    def mended(state, raw_input, execution, ctx):
        limits = [key for key in ("TimeoutSeconds", "HeartbeatSeconds") if isinstance(state.get(key), str)]
        if limits and _is_jsonata(state, ctx):
            state = {**state, **{key: sfn._jsonata_state_field(state, key, "number", raw_input, ctx)
                                 for key in limits}}
        return execute_task(state, raw_input, execution, ctx)

    return mended


def apply() -> None:
    sfn._apply_output_path = _succeed_output(sfn._apply_output_path)
    sfn._run_parallel_branches = _parallel_fields(sfn._run_parallel_branches)
    sfn._run_distributed_map = _distributed_map_fields(sfn._run_distributed_map)
    sfn._execute_task = _time_limits(sfn._execute_task)

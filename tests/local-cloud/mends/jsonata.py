"""The JSONata fields of Succeed, Parallel, distributed Map and Task that MiniStack passes over in silence."""

import copy

from ministack.services import stepfunctions as sfn


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
    """A distributed Map takes Items, shapes each with ItemSelector, and has Output and Assign, as an inline one.

    MiniStack reads the JSONPath names of these fields only. Its own function gets the finished items.
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
        return _finish(state, raw_input, ctx, results), following

    return mended


def _items(state: dict, raw_input, effective, ctx: dict) -> list:
    if "ItemReader" in state:
        reader = dict(state["ItemReader"])
        reader["Arguments"] = sfn._apply_jsonata_template(reader.get("Arguments", {}), raw_input, ctx)
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

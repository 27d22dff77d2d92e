"""Conditions of templates that join a list.

AWS (CloudFormation user guide: "Condition functions", "Fn::Join"): a condition may compare what Fn::Join makes of a list
parameter; an empty CommaDelimitedList joins to the empty string. MiniStack compares the unevaluated function, which is
never equal to anything: a condition "this list is not empty" always holds, and a role has statements that it would not
have on AWS.
"""

from ministack.services.cloudformation import changesets, engine, handlers, stacks


def _members(items, params: dict) -> list[str]:
    if isinstance(items, dict) and "Ref" in items and items["Ref"] in params:
        return [member.strip() for member in str(params[items["Ref"]]["Value"]).split(",")]
    return [str(_joined(item, params)) for item in items]


def _joined(value, params: dict):
    """An expression with every Fn::Join in it replaced by its text."""
    if isinstance(value, list):
        return [_joined(item, params) for item in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        delimiter, items = value["Fn::Join"]
        return delimiter.join(_members(items, params))
    return {name: _joined(inner, params) for name, inner in value.items()}


def _with_joins(evaluate):
    def mended(template, params):
        return evaluate({**template, "Conditions": _joined(template.get("Conditions", {}), params)}, params)

    return mended


def apply() -> None:
    mended = _with_joins(engine._evaluate_conditions)
    for module in (engine, changesets, handlers, stacks):
        module._evaluate_conditions = mended

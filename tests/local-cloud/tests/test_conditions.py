"""Conditions of a template decide about its resources as on AWS."""

import json
import uuid

import pytest

TEMPLATE = {
    "Parameters": {"Names": {"Type": "CommaDelimitedList", "Default": ""}},
    "Conditions": {"HasNames": {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": "Names"}]}, ""]}]}},
    "Resources": {
        "Always": {"Type": "AWS::SQS::Queue"},
        "WithNames": {"Type": "AWS::SQS::Queue", "Condition": "HasNames"}},
}


@pytest.mark.parametrize(("given", "expected"), [
    ({}, ["Always"]), ({"Names": ""}, ["Always"]), ({"Names": "one"}, ["Always", "WithNames"]),
    ({"Names": "one,two"}, ["Always", "WithNames"])])
def test_an_empty_list_is_joined_to_the_empty_text(cloud, given, expected):
    formation, name = cloud.client("cloudformation"), f"joined-{uuid.uuid4().hex[:8]}"
    formation.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE), Parameters=[
        {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()])
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    made = formation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    assert sorted(each["LogicalResourceId"] for each in made) == expected

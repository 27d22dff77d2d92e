"""Lists come in pages, by filter, by type, by ARN."""

import pytest

from harness import wire_error


def test_more_than_a_hundred_snapshots_come_in_pages(rds, region):
    region.instance("orders")
    rds.configure(statusMs=0, snapshotQuota=200)
    names = [f"shot-{number:03}" for number in range(105)]
    for name in names:
        region.client.create_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier="orders")
        region.wait_instance("orders")
    region.wait_snapshot(names[-1])

    def listed(answer):
        return [one["DBSnapshotIdentifier"] for one in answer["DBSnapshots"]]

    first = region.client.describe_db_snapshots()
    assert listed(first) == names[:100] and first["Marker"]
    second = region.client.describe_db_snapshots(Marker=first["Marker"])
    assert listed(second) == names[100:] and "Marker" not in second
    pages = list(region.client.get_paginator("describe_db_snapshots").paginate(PaginationConfig={"PageSize": 20}))
    assert [len(listed(page)) for page in pages] == [20, 20, 20, 20, 20, 5]
    assert [name for page in pages for name in listed(page)] == names


def test_instances_come_in_pages(rds, region):
    names = [f"db-{number:02}" for number in range(23)]
    region.fault("CreateDBInstance", {"outcome": "never-available"}, count=len(names))
    for name in names:
        region.begin_instance(name)
    pages = region.client.get_paginator("describe_db_instances").paginate(PaginationConfig={"PageSize": 20})
    found = [[one["DBInstanceIdentifier"] for one in page["DBInstances"]] for page in pages]
    assert found == [names[:20], names[20:]]


@pytest.mark.parametrize("parameters", [{"MaxRecords": 19}, {"MaxRecords": 101}, {"Marker": "nonsense"}])
def test_wrong_page_sizes_and_markers_are_refused(region, parameters):
    for call in [region.client.describe_db_instances, region.client.describe_db_snapshots]:
        assert wire_error(call, **parameters)[:2] == ("InvalidParameterValue", 400)


def test_instances_are_filtered(region):
    one, two = region.instance("one"), region.instance("two")

    def found(name, *values):
        answer = region.client.describe_db_instances(Filters=[{"Name": name, "Values": list(values)}])
        return [instance["DBInstanceIdentifier"] for instance in answer["DBInstances"]]

    assert found("db-instance-id", "two", "three") == ["two"]
    assert found("db-instance-id", one["DBInstanceArn"]) == ["one"]
    assert found("db-instance-id", "three") == []
    assert found("dbi-resource-id", two["DbiResourceId"]) == ["two"]
    assert found("engine", "postgres") == ["one", "two"]
    assert found("engine", "mysql") == []
    by_arn = region.client.describe_db_instances(DBInstanceIdentifier=one["DBInstanceArn"])["DBInstances"]
    assert [instance["DBInstanceIdentifier"] for instance in by_arn] == ["one"]
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert wire_error(region.client.describe_db_instances, Filters=unknown)[:2] == ("InvalidParameterValue", 400)


def test_snapshots_are_filtered(region):
    one, _ = region.instance("one"), region.instance("two")
    first = region.snapshot("first", "one")
    region.snapshot("second", "two")

    def found(**parameters):
        answer = region.client.describe_db_snapshots(**parameters)
        return [snapshot["DBSnapshotIdentifier"] for snapshot in answer["DBSnapshots"]]

    def by(name, *values):
        return found(Filters=[{"Name": name, "Values": list(values)}])

    assert found() == ["first", "second"]
    assert found(SnapshotType="manual") == ["first", "second"]
    assert found(SnapshotType="automated") == found(SnapshotType="awsbackup") == []
    assert found(DBInstanceIdentifier="one") == ["first"]
    assert found(DBInstanceIdentifier="gone") == []
    assert found(DbiResourceId=one["DbiResourceId"]) == ["first"]
    assert found(DBSnapshotIdentifier=first["DBSnapshotArn"]) == ["first"]
    assert found(DBSnapshotIdentifier="FIRST") == ["first"]
    assert by("db-snapshot-id", "second", "third") == ["second"]
    assert by("db-instance-id", "one") == ["first"]
    assert by("snapshot-type", "manual") == ["first", "second"]
    assert by("snapshot-type", "automated") == []
    assert by("engine", "postgres") == ["first", "second"]
    wrong = wire_error(region.client.describe_db_snapshots, SnapshotType="secret")
    assert wrong[:2] == ("InvalidParameterValue", 400)


def test_groups_and_versions_are_listed(region):
    client = region.client
    versions = client.describe_db_engine_versions(Engine="postgres")["DBEngineVersions"]
    assert [one["DBParameterGroupFamily"] for one in versions][-1] == "postgres18"
    groups = client.describe_db_parameter_groups()["DBParameterGroups"]
    assert "default.postgres17" in [one["DBParameterGroupName"] for one in groups]
    options = client.describe_option_groups(EngineName="postgres", MajorEngineVersion="17")["OptionGroupsList"]
    assert [one["OptionGroupName"] for one in options] == ["default:postgres-17"]
    assert [one["DBSubnetGroupName"] for one in client.describe_db_subnet_groups()["DBSubnetGroups"]] == ["default"]

"""What a look at health needs beside the rest: certificate authorities, and instances that call themselves replicas."""

import datetime

from harness import wire_error


def test_authorities_are_listed_in_pages_with_the_end_of_their_validity(rds, region):
    rds.configure(caValidTill="2027-01-02T03:04:05Z")
    pages = region.client.get_paginator("describe_certificates").paginate(PaginationConfig={"PageSize": 20})
    [authorities] = [page["Certificates"] for page in pages]
    assert "rds-ca-rsa2048-g1" in [one["CertificateIdentifier"] for one in authorities]
    assert {one["ValidTill"] for one in authorities} == {datetime.datetime(2027, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)}
    [one] = region.client.describe_certificates(CertificateIdentifier="rds-ca-rsa4096-g1")["Certificates"]
    assert one["CertificateType"] == "CA"
    assert wire_error(region.client.describe_certificates, CertificateIdentifier="rds-ca-2015")[:2] == (
        "CertificateNotFound", 404)


def test_an_instance_calls_itself_a_replica_when_it_is_ordered_to(rds, region):
    region.fault("CreateDBInstance", {"outcome": "never-available"}, count=1)
    region.begin_instance("orders-replica")
    assert "ReadReplicaSourceDBInstanceIdentifier" not in region.look("orders-replica")
    order = {"region": region.name, "instance": "orders-replica", "source": "orders"}
    rds.order("replication", {**order, "status": "error", "message": "WAL is gone"})
    seen = region.look("orders-replica")
    assert seen["ReadReplicaSourceDBInstanceIdentifier"] == "orders"
    assert seen["StatusInfos"] == [
        {"StatusType": "read replication", "Normal": False, "Status": "error", "Message": "WAL is gone"}]
    rds.order("replication", order)
    assert region.look("orders-replica")["StatusInfos"][0]["Normal"] is True
    del order["source"]
    rds.order("replication", order)
    assert not region.look("orders-replica").get("StatusInfos")

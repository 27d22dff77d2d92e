"""What chaos experiments need and MiniStack does by itself: codes by keys for HMAC, and alarms."""

import botocore.exceptions
import pytest

MESSAGE = {"MacAlgorithm": "HMAC_SHA_256", "Message": b"experiment 1, plan 2"}


@pytest.fixture(scope="module")
def key(cloud):
    return cloud.client("kms").create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")["KeyMetadata"]["Arn"]


def test_a_code_is_valid_for_its_message_and_key_only(cloud, key):
    kms = cloud.client("kms")
    code = kms.generate_mac(KeyId=key, **MESSAGE)["Mac"]
    assert kms.verify_mac(KeyId=key, Mac=code, **MESSAGE)["MacValid"]
    other = kms.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")["KeyMetadata"]["Arn"]
    for wrong in ({**MESSAGE, "KeyId": key, "Mac": code[:-1] + bytes([code[-1] ^ 1])}, {**MESSAGE, "KeyId": other, "Mac": code},
                  {**MESSAGE, "KeyId": key, "Mac": code, "Message": b"experiment 1, plan 3"}):
        with pytest.raises(kms.exceptions.KMSInvalidMacException):
            kms.verify_mac(**wrong)


def test_who_verifies_codes_cannot_make_them(cloud, client_as, key):
    code = cloud.client("kms").generate_mac(KeyId=key, **MESSAGE)["Mac"]
    kms = client_as("kms", {"Effect": "Allow", "Action": "kms:VerifyMac", "Resource": key})
    assert kms.verify_mac(KeyId=key, Mac=code, **MESSAGE)["MacValid"]
    with pytest.raises(botocore.exceptions.ClientError, match="kms:GenerateMac"):
        kms.generate_mac(KeyId=key, **MESSAGE)


def test_an_alarm_is_in_the_state_that_it_is_set_to(cloud):
    alarms = cloud.client("cloudwatch")
    alarms.put_metric_alarm(AlarmName="set", Namespace="x", MetricName="m", Period=60, EvaluationPeriods=1, Threshold=1,
                            Statistic="Sum", ComparisonOperator="GreaterThanThreshold")
    alarms.put_composite_alarm(AlarmName="of-set", AlarmRule="ALARM(set)")
    for state in ("ALARM", "OK", "ALARM"):
        alarms.set_alarm_state(AlarmName="set", StateValue=state, StateReason="a test")
        told = alarms.describe_alarms(AlarmNames=["set", "of-set", "absent"], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        [alarm], [composite] = told["MetricAlarms"], told["CompositeAlarms"]
        assert (alarm["StateValue"], composite["StateValue"]) == (state, state)

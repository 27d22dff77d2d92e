"""Conditions on the tags of a resource (`aws:ResourceTag/<key>`) in EC2, Auto Scaling, load balancing and RDS.

AWS compares them with the tags that the resource has when the call is made; without the tag, and without the resource,
the condition does not hold. MiniStack knows the tags of other services' resources only (Lambda, KMS, DynamoDB …), so
that nothing in these four would ever be allowed.

The tags of RDS are asked of rds-local, by ListTagsForResource: an order for that action meets this too.
"""

import http.client
import logging
import urllib.parse
import xml.etree.ElementTree

from ministack.core.responses import get_account_id, get_region
from ministack.services import alb, autoscaling, ec2, tagging

logger = logging.getLogger("iam")
ANSWER_WITHIN_S = 10


def _of_ec2():
    for name, tags in ec2._tags.items():
        kind = ec2._guess_resource_type(name)
        yield f"arn:aws:ec2:{get_region()}:{get_account_id()}:{kind}/{name}", tags


def _of_autoscaling():
    for group in autoscaling._asgs.values():
        yield group["AutoScalingGroupARN"], group["Tags"]


def _of_load_balancing():
    yield from alb._tags.items()


def _of_rds(arn: str, host: str, port: int) -> dict[str, str] | None:
    region = arn.split(":")[3] or get_region()
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_WITHIN_S)
    try:
        connection.request("POST", "/", urllib.parse.urlencode(
            {"Action": "ListTagsForResource", "Version": "2014-10-31", "ResourceName": arn}), {
                "Content-Type": "application/x-www-form-urlencoded",
                "Authorization": f"AWS4-HMAC-SHA256 Credential=iam/20260101/{region}/rds/aws4_request, "
                                 f"SignedHeaders=host, Signature=0"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            return None
        tags = xml.etree.ElementTree.fromstring(text).findall(".//{*}Tag")
        return {tag.findtext("{*}Key", ""): tag.findtext("{*}Value", "") for tag in tags}
    except (OSError, http.client.HTTPException, xml.etree.ElementTree.ParseError) as error:
        logger.warning("the tags of %s cannot be read: %r", arn, error)
        return None
    finally:
        connection.close()


def _with_rds(resource_tags, endpoint: str):
    url = urllib.parse.urlsplit(endpoint)

    def mended(arn):
        if arn.startswith("arn:aws:rds:") and "*" not in arn:
            return _of_rds(arn, url.hostname, url.port)
        return resource_tags(arn)

    return mended


def apply(rds_endpoint: str | None) -> None:
    tagging._RESOURCE_TAG_COLLECTORS.update({
        "ec2": _of_ec2, "autoscaling": _of_autoscaling, "elasticloadbalancing": _of_load_balancing})
    if rds_endpoint:
        tagging.resource_tags = _with_rds(tagging.resource_tags, rds_endpoint)

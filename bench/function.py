"""What a cold start is compared with: a Python function that makes the clients that `validate_backup` makes, as
Lambda's own runtime for Python would run it, less that runtime's own modules.
"""

import http.client
import os

import boto3

CLIENTS = [boto3.client(service) for service in ("rds", "s3", "secretsmanager")]

host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
connection = http.client.HTTPConnection(host, int(port))
connection.request("GET", "/2018-06-01/runtime/invocation/next")
connection.getresponse()

"""A function for a custom runtime: does what its event asks for. Becomes the `bootstrap` of a deployment package."""

import json
import os
import time
import urllib.request

API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"


def handle(event):
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "big" in event:
        return "x" * event["big"]
    if "call" in event:
        import boto3
        service, operation, arguments = event["call"]
        return json.loads(json.dumps(getattr(boto3.client(service), operation)(**arguments), default=str))
    return {"pid": os.getpid(), "secondsLeft": event.pop("deadline") / 1000 - time.time(), "event": event}


def serve():
    while True:
        with urllib.request.urlopen(f"{API}/next") as request:
            event, name = json.load(request), request.headers["Lambda-Runtime-Aws-Request-Id"]
            os.environ["_X_AMZN_TRACE_ID"] = request.headers["Lambda-Runtime-Trace-Id"] or ""
            deadline = int(request.headers["Lambda-Runtime-Deadline-Ms"])
        try:
            if "fail" in event:
                raise RuntimeError(event["fail"])
            path, answer = "response", handle({**event, "deadline": deadline})
        except Exception as error:
            path, answer = "error", {"errorType": event.get("errorType", type(error).__name__),
                                     "errorMessage": str(error)}
        urllib.request.urlopen(urllib.request.Request(f"{API}/{name}/{path}", json.dumps(answer).encode()))


serve()

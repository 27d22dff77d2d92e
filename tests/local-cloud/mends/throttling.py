"""The name that Step Functions gives to a function's refusal.

AWS (Lambda API reference: Invoke; Step Functions developer guide: "Handling errors"): a function that is out of
concurrency, with 0 reserved always, refuses with TooManyRequestsException and the reason
ReservedFunctionConcurrentInvocationLimitExceeded. To a state machine that is Lambda.TooManyRequestsException.

MiniStack refuses in the same way, and calls it Lambda.Unknown in a state machine.
"""

import json

from ministack.services import stepfunctions as sfn


def _named(call_lambda):
    def mended(func_ref, event):
        try:
            return call_lambda(func_ref, event)
        except sfn._ExecutionError as error:
            if error.error != "Lambda.Unknown" or '"__type"' not in error.cause:
                raise
            refusal = json.loads(error.cause)
            raise sfn._ExecutionError(
                f"Lambda.{refusal['__type']}", f"{refusal['message']} (Service: Lambda, Status Code: 429)") from None

    return mended


def apply() -> None:
    sfn._call_lambda = _named(sfn._call_lambda)

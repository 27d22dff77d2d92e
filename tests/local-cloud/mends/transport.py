"""Requests count as sent over TLS.

AWS refuses plain HTTP where a policy says so (`aws:SecureTransport`). The local endpoint is plain HTTP on 127.0.0.1 and
stands for AWS's TLS endpoints; MiniStack takes it at its word, so every policy "TLS only" would shut everybody out.
"""

from ministack.core import iam_evaluator


def apply() -> None:
    plain = iam_evaluator._resolve_condition_key

    def mended(key, ctx):
        return "true" if key.lower() == "aws:securetransport" else plain(key, ctx)

    iam_evaluator._resolve_condition_key = mended

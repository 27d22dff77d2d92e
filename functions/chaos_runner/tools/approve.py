"""Approves a chaos experiment's plan: makes the code, and hands the approval to `chaos_runner` when it is told its name.

    approve.py --operation chaos-… --plan HASH --approver NAME [--expires 60 | 2026-11-26T12:00:00Z]
               (--key-file FILE | --kms-key ARN) [--function lifeboat-chaos-runner] [--region us-east-1]
    approve.py … --print-message > message      only the bytes that the code is made of, for other tools

The key in FILE is hexadecimal, of 32 bytes or more, and the approver's own (`-` reads it from the terminal). With
--kms-key the code is made by the AWS CLI (`kms generate-mac`) and the key never leaves KMS. Without --function the payload
is printed. Nothing but Python's standard library is needed, and the AWS CLI for KMS and for sending.
"""

import argparse
import base64
import datetime
import getpass
import hashlib
import hmac
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LONGEST = datetime.timedelta(hours=24)
SHORTEST_KEY = 32


class RefusedError(Exception):
    """What is wrong, for people."""


def message(operation: str, plan: str, approver: str, expires: str) -> bytes:
    """As `dr_core::chaos::approval::Approval::message` makes it: each part after its length in bytes."""
    parts = [part.encode() for part in ("lifeboat chaos approval 1", operation, plan, approver, expires)]
    return b"".join(b"%d:%s\n" % (len(part), part) for part in parts)


def expiry(text: str) -> str:
    """Minutes from now, or a time, as whole seconds of UTC."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    if text.isdigit():
        at = now + datetime.timedelta(minutes=int(text))
    else:
        try:
            at = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise RefusedError("--expires is a number of minutes or a time such as 2026-11-26T12:00:00Z") from None
        if at.tzinfo is None:
            raise RefusedError("--expires needs a time zone, such as the Z of 2026-11-26T12:00:00Z")
        at = at.astimezone(datetime.UTC).replace(microsecond=0)
    if not now < at <= now + LONGEST:
        raise RefusedError("--expires must be within the next 24 hours")
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def own_key(file: str) -> bytes:
    """The approver's key. It is never printed and never an argument, which others could see."""
    text = getpass.getpass("key, hexadecimal: ") if file == "-" else Path(file).expanduser().read_text()
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise RefusedError("the key is not hexadecimal") from None
    if len(key) < SHORTEST_KEY:
        raise RefusedError(f"the key has {len(key)} bytes, and {SHORTEST_KEY} are the fewest")
    return key


def aws(arguments: list[str], region: str | None) -> str:
    """What the AWS CLI prints."""
    command = ["aws", *(["--region", region] if region else []), *arguments]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RefusedError(done.stderr.strip() or f"aws ended with {done.returncode}")
    return done.stdout


def code_by_kms(key: str, text: bytes, region: str | None) -> str:
    """The code, by a key that stays in KMS."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        mac = aws(["kms", "generate-mac", "--key-id", key, "--mac-algorithm", "HMAC_SHA_256", "--message",
                   f"fileb://{file.name}", "--query", "Mac", "--output", "text"], region)
    return base64.b64decode(mac).hex()


def send(function: str, payload: str, region: str | None) -> dict:
    """What `chaos_runner` answers."""
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as answer:
        file.write(payload.encode())
        file.flush()
        # `fileb://` is taken as it is by both versions of the CLI.
        aws(["lambda", "invoke", "--function-name", function, "--payload", f"fileb://{file.name}", answer.name], region)
        return json.loads(Path(answer.name).read_text())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Approves the plan of a chaos experiment.")
    parser.add_argument("--operation", required=True, help="the operation, chaos-…, from the request for approval")
    parser.add_argument("--plan", required=True, help="the plan's hash, from the same message")
    parser.add_argument("--approver", required=True, help="your name in CHAOS_APPROVAL_KEY")
    parser.add_argument("--expires", default="60", help="minutes from now, or a time; 24 hours at most (default: 60)")
    parser.add_argument("--key-file", help="your key in hexadecimal; `-` asks for it")
    parser.add_argument("--kms-key", help="ARN, id or alias of your HMAC key")
    parser.add_argument("--function", help="name of chaos_runner, to hand the approval in")
    parser.add_argument("--region", help="the stack's Region")
    parser.add_argument("--print-message", action="store_true", help="print what the code is made of, and nothing else")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        if not re.fullmatch(r"chaos-[0-9a-f]{16}", given.operation) or not re.fullmatch(r"[0-9a-f]{64}", given.plan):
            raise RefusedError("an operation is chaos- and 16 hexadecimal digits, a plan's hash has 64")
        expires = expiry(given.expires)
        text = message(given.operation, given.plan, given.approver, expires)
        if given.print_message:
            sys.stdout.buffer.write(text)
            return 0
        if bool(given.key_file) == bool(given.kms_key):
            raise RefusedError("give one of --key-file and --kms-key")
        code = (code_by_kms(given.kms_key, text, given.region) if given.kms_key
                else hmac.new(own_key(given.key_file), text, hashlib.sha256).hexdigest())
        payload = json.dumps({"approve": {"operationId": given.operation, "approval": {
            "planHash": given.plan, "approver": given.approver, "expiresAt": expires, "code": code}}})
        if not given.function:
            print(payload)
            return 0
        answer = send(given.function, payload, given.region)
    except (RefusedError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    print(json.dumps(answer, indent=2))
    return 1 if "errorType" in answer else 0


if __name__ == "__main__":
    sys.exit(main())

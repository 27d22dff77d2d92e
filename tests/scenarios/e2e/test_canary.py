"""A canary is looked for in every place at once: planted in rows, keys, defaults, functions, passwords, tokens and
connection strings, with errors provoked that PostgreSQL quotes values in.

The one place that may hold any of it is the metadata bucket: primary keys of rows that differ, in the report and in
the records that it is made of. Not looked into: the servers' own logs, which are the database owner's.
"""

import contextlib
import json
import re
from pathlib import Path

from stage import until
from test_backups import QUIET, backup

ROW, KEY, DEFAULT, PASSWORD = "canary-row-9041", "canary-key-9042", "canary-default-9043", "canary-Password-9044"
WRONG, FIELD, LABEL, RAISED = "canary-Wrong-9045", "canary-field-9046", "canary-label-9047", "canary-raised-9048"
SECRET = "lifeboat-test/canary"
# Where keys of differing rows may be, below operations/<operation>/.
KEYS_MAY_BE_IN = ("report.json", "examination/narrowing/")

SCHEMA = f"""
create role keeper login password '{PASSWORD}';
grant pg_read_all_data to keeper; grant create on database app to keeper;
create type label as enum ('{LABEL}');
create function folded(v text) returns text immutable language plpgsql as $$begin return lower(v); end$$;
create table vault (id text primary key, v text not null default '{DEFAULT}', n int, kind label default '{LABEL}',
  check (v <> '{DEFAULT}x'));
insert into vault (id, v, n) select '{KEY}-' || k, '{ROW}-' || k, k from generate_series(1, 400) k;
create index vault_folded on vault (folded(v)); create unique index vault_v on vault (v);
create table child (id int primary key, of text references vault, v text);
insert into child select k, '{KEY}-' || k, '{ROW}' from generate_series(1, 300) k;
create view shown as select * from vault where v <> '{ROW}';
comment on table vault is '{ROW}';
create table failing (id int primary key);
"""

# On the snapshot: rows gone, changed and doubled, references to nothing, and a function that says what it sees under
# an SQLSTATE of the server's own.
DAMAGE = [
    f"set session_replication_role = replica; delete from vault where id = '{KEY}-7'",
    f"update vault set v = '{ROW}-changed' where id = '{KEY}-8'",
    f"set session_replication_role = replica; insert into child values (999, '{KEY}-nowhere', '{ROW}')",
    "update pg_index set indisready = false where indexrelid = 'vault_v'::regclass",
    f"update vault set v = '{ROW}-10' where id = '{KEY}-9'",
    "update pg_index set indisready = true where indexrelid = 'vault_v'::regclass",
    f"""create or replace function folded(v text) returns text immutable language plpgsql as $$begin
        raise notice '{RAISED} %', v;
        raise exception '{RAISED} %', v using errcode = 'XX001', detail = v, hint = v; end$$""",
]


def everything(stage) -> dict[str, str]:
    """All that Lifeboat and the cloud under it have written anywhere, as text by place."""
    cloud, places = stage.cloud, {}
    logs = cloud.client("logs")
    for group in logs.describe_log_groups()["logGroups"]:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
        places[f"log {group['logGroupName']}"] = "\n".join(event["message"] for page in pages for event in page["events"])
    for name in ("ministack", "rds-local"):
        places[f"log of {name}"] = cloud.log(name).read_text(errors="replace")
    states = cloud.client("stepfunctions")
    for machine in states.list_state_machines()["stateMachines"]:
        for page in states.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"]):
            for execution in page["executions"]:
                arn = execution["executionArn"]
                told = [states.describe_execution(executionArn=arn), stage.history(arn)]
                places[f"execution {arn}"] = json.dumps(told, default=str)
    table = cloud.client("dynamodb").get_paginator("scan").paginate(TableName=stage.outputs["StateTableName"])
    places["state table"] = json.dumps([page["Items"] for page in table])
    for topic in ("Critical", "Warning", "Info"):
        places[f"alerts {topic}"] = json.dumps(stage.alerts(topic))
    metrics = cloud.client("cloudwatch").get_paginator("list_metrics").paginate()
    places["metrics"] = json.dumps([page["Metrics"] for page in metrics])
    s3, bucket = cloud.client("s3"), stage.outputs["MetadataBucketName"]
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            body = s3.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
            places[f"bucket {version['Key']}"] = version["Key"] + body.decode()
    for region in (cloud.region, "us-west-2", "eu-west-1"):
        rds = cloud.client("rds", region)
        told = [rds.describe_db_snapshots()["DBSnapshots"], rds.describe_db_instances()["DBInstances"]]
        places[f"RDS {region}"] = json.dumps(told, default=str)
    places["secrets' names and tags"] = json.dumps(cloud.client("secretsmanager").list_secrets()["SecretList"], default=str)
    return places


def found(places: dict[str, str], canaries: dict[str, str]) -> list[str]:
    return sorted(f"{name} in {place}" for place, text in places.items() for name, canary in canaries.items()
                  if canary in text or json.dumps(canary)[1:-1] in text)


def credentials_of_functions(stage, seen: dict[str, str]) -> None:
    """Adds the keys and tokens that the functions' processes hold right now."""
    names = {output for name, output in stage.outputs.items() if name.endswith("FunctionName")}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            variables = dict(pair.split("=", 1) for pair in path.read_bytes().decode(errors="replace").split("\0") if "=" in pair)
            if variables.get("AWS_LAMBDA_FUNCTION_NAME") in names:
                for variable in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                    if len(variables.get(variable, "")) > 8:
                        seen[f"{variable} of {variables['AWS_LAMBDA_FUNCTION_NAME']}"] = variables[variable]


def test_a_canary_is_looked_for_in_every_place_at_once(stage):
    vault = stage.create_database("vault-db")
    vault.sql(SCHEMA)
    secrets = stage.cloud.client("secretsmanager")

    def secret(name, password):
        content = {"username": "keeper", "password": password, "dsn": f"postgres://keeper:{password}@{vault.host}/app"}
        secrets.create_secret(Name=name, SecretString=json.dumps(content))
        return {"credentials": {"secretId": name}, "foreignKeys": True, "uniqueConstraints": True}
    right, wrong = secret(SECRET, PASSWORD), secret(f"{SECRET}-wrong", WRONG)
    canaries = {"row": ROW, "default": DEFAULT, "label": LABEL, "raised": RAISED, "password": PASSWORD, "wrong password": WRONG,
                "field": FIELD, "master password": vault.password}

    # A backup that is damaged in all these ways.
    execution = stage.start_damaged({"database": vault.name, "validation": right}, vault.database,
                                    {"sql": {"statements": DAMAGE}})

    def restore_password():
        credentials_of_functions(stage, canaries)
        for entry in secrets.list_secrets()["SecretList"]:
            if entry["Name"].startswith("lifeboat/tmp/"):
                with contextlib.suppress(secrets.exceptions.ResourceNotFoundException):
                    return json.loads(secrets.get_secret_value(SecretId=entry["Name"])["SecretString"])["password"]
        return None
    canaries["password of the restore"] = until("the restore has a secret", restore_password, pause=0.02)
    ended = stage.finish(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "Dr.BackupUnproven"), ended
    report = re.search(r"operations/proof-[0-9a-f]+/report\.json", ended["cause"])[0]

    # One that is sound; credentials that are wrong; a trigger that complains; canaries in the wrong fields.
    ended, _ = backup(stage, {"database": vault.name, "validation": right, **QUIET})
    assert ended["status"] == "SUCCEEDED", ended
    ended, _ = backup(stage, {"database": vault.name, "validation": wrong, **QUIET})
    assert ended["error"] == "Dr.CredentialsRejected", ended
    # The heartbeat is its writer's.
    vault.sql("grant keeper to current_user", "set role keeper", f"""
        create function lifeboat.complain() returns trigger language plpgsql as $$begin
        raise exception '{RAISED} %', (select v from vault limit 1) using errcode = 'XX000'; end$$;
        create trigger complain before insert or update on lifeboat.heartbeat for each row
        execute function lifeboat.complain()""")
    ended, _ = backup(stage, {"database": vault.name, "validation": right, **QUIET})
    assert ended["error"] == "Dr.QueryFailed", ended
    for function, payload in {
        "ValidateBackup": {"frame": {"operationId": FIELD, "database": FIELD, "validation": {"depth": FIELD}}},
        "CreateSnapshot": {"describe": {"operationId": "backup-0123456789abcdef", "database": FIELD + " "}},
        "UpdateState": {"begin": {"execution": FIELD, "startedAt": FIELD, "kind": FIELD, "request": {"password": FIELD}}},
    }.items():
        _, error = stage.invoke(function, payload)
        assert error["errorType"] == "Dr.InvalidInput" and FIELD not in json.dumps(error), error

    assert any("TOKEN" in name or "SECRET" in name for name in canaries), "no function was seen at work"
    places = everything(stage)
    # The looking itself is looked at: what must be there is found.
    assert KEY in places[f"bucket {report}"] and any("Dr.BackupUnproven" in text for text in places.values())
    assert sum(place.startswith("log /aws/lambda/") for place in places) >= 5
    assert any('"_aws"' in text for place, text in places.items() if place.startswith("log "))
    assert found(places, canaries) == []
    elsewhere = {place: text for place, text in places.items()
                 if not any(part in place for part in KEYS_MAY_BE_IN)}
    assert found(elsewhere, {"key": KEY}) == []

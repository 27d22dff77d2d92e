"""A local cloud with everything that a backup needs: keys in three Regions, a subnet group, the deployed stack, a
subscription to each alert topic, and source databases. The demo and the end-to-end tests stand on it.
"""

import concurrent.futures
import datetime
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

from cloud import TARGET_REGIONS, LocalCloud, postgresql_roots

SUBNET_GROUP = "lifeboat-private"
SECURITY_GROUP = "sg-0123456789abcdef0"
TOPICS = ("Critical", "Warning", "Info")
MASTER = "dba"
IMAGE = "ami-0abcdef1234567890"
# Without this tag, chaos experiments touch nothing.
MAY_BE_HARMED = {"Key": "dr:chaos", "Value": "allowed"}


class StageError(Exception):
    """Something that the stage waits for did not happen; the text says what was seen last."""


def until(what: str, look, seconds: float = 60.0, pause: float = 0.1):
    """Calls `look` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise StageError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


class Stage:
    """The deployed stack on a running cloud."""

    def __init__(self, cloud: LocalCloud, stack: str = "lifeboat"):
        self.cloud, self.stack = cloud, stack
        self.outputs: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self._queues: dict[str, str] = {}

    def create_keys(self) -> "Stage":
        """Makes a key and a private subnet group in each Region."""
        for region in (self.cloud.region, *TARGET_REGIONS):
            key = self.cloud.client("kms", region).create_key(Description=f"Lifeboat's backups in {region}")
            self.keys[region] = key["KeyMetadata"]["Arn"]
            self.cloud.client("rds", region).create_db_subnet_group(
                DBSubnetGroupName=SUBNET_GROUP, DBSubnetGroupDescription="Temporary restores, private",
                SubnetIds=["subnet-0a", "subnet-0b"])
        return self

    def prepare(self, parameters: dict[str, str] | None = None, say=None) -> "Stage":
        """Deploys the template and subscribes to the alerts."""
        self.outputs = self.cloud.deploy(parameters={
            "TargetRegions": ",".join(TARGET_REGIONS),
            "TargetKmsKeyIds": ",".join(f"{region}={self.keys[region]}" for region in TARGET_REGIONS),
            **self._common(),
            **(parameters or {}),
        }, say=say)
        self.set_watchdog("DISABLED")
        return self.listen()

    def _common(self) -> dict[str, str]:
        # Health is looked at when it is asked for: a schedule would tell of what others break on purpose.
        return {"RestoreSubnetGroup": SUBNET_GROUP, "RestoreSecurityGroupIds": SECURITY_GROUP,
                "DbCaFile": self.cloud.rds_ca_file, "HealthSchedule": ""}

    def beside(self, region: str, parameters: dict[str, str], say=None, stack: str = "lifeboat-standby") -> "Stage":
        """The template once more, as a stack of its own in another Region, without targets unless `parameters` say so."""
        other = Stage(self.cloud.in_region(region), stack)
        other.keys = self.keys
        other.outputs = other.cloud.deploy(
            stack=other.stack, parameters={**self._common(), **parameters}, say=say)
        other.set_watchdog("DISABLED")
        return other.listen()

    def set_watchdog(self, state: str) -> None:
        """ENABLED or DISABLED: whether the watchdog looks every minute, of real time, after what others leave behind on
        purpose. It rests until a test wants it; asked for by hand (`watch`) it looks all the same."""
        scheduler = self.cloud.client("scheduler")
        name = f"{self.stack}-watchdog"
        there = scheduler.get_schedule(Name=name)
        kept = ("ScheduleExpression", "FlexibleTimeWindow", "Target", "Description")
        scheduler.update_schedule(Name=name, State=state, **{key: there[key] for key in kept})

    def listen(self) -> "Stage":
        """Subscribes to the alerts."""
        for topic in TOPICS:
            self.subscribe(topic, self.outputs[f"{topic}TopicArn"])
        return self

    def subscribe(self, name: str, topic: str) -> None:
        """Keeps what arrives on a topic, for `alerts(name)`."""
        sns, sqs = self.cloud.client("sns"), self.cloud.client("sqs")
        url = sqs.create_queue(QueueName=f"{self.stack}-{name.lower()}-listener")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = {"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
            "Resource": arn, "Condition": {"ArnEquals": {"aws:SourceArn": topic}}}]}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        self._queues[name] = url

    # Databases

    def create_database(self, name: str, **options) -> "Database":
        """An encrypted instance with a managed master password, available: PostgreSQL unless `Engine` says otherwise."""
        rds = self.cloud.client("rds")
        rds.create_db_instance(**without_none({
            "DBInstanceIdentifier": name, "Engine": "postgres", "EngineVersion": "17", "DBName": "app",
            "DBInstanceClass": "db.t4g.medium", "AllocatedStorage": 20, "MasterUsername": MASTER,
            "ManageMasterUserPassword": True, "StorageEncrypted": True, "KmsKeyId": self.keys[self.cloud.region],
            "DBSubnetGroupName": SUBNET_GROUP, "VpcSecurityGroupIds": [SECURITY_GROUP],
            "BackupRetentionPeriod": 0, **options}))

        def available():
            [instance] = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
            return instance["DBInstanceStatus"] == "available" and instance
        kind = MariaDatabase if options.get("Engine") == "mariadb" else Database
        return kind(self, until(f"database {name} available", available))

    def create_cluster(self, name: str, member_class: str = "db.r6g.large", **options) -> "Database":
        """An encrypted Aurora cluster (PostgreSQL unless `Engine` says otherwise) with one member, `<name>-1`, or, with
        `DBClusterInstanceClass`, a Multi-AZ DB cluster; with a managed master password, available."""
        rds = self.cloud.client("rds")
        aurora = "DBClusterInstanceClass" not in options
        engine = options.get("Engine", "aurora-postgresql" if aurora else "postgres")
        rds.create_db_cluster(**without_none({
            "DBClusterIdentifier": name, "Engine": engine, "EngineVersion": "17", "DatabaseName": "app",
            "MasterUsername": MASTER, "ManageMasterUserPassword": True, "StorageEncrypted": True,
            "KmsKeyId": self.keys[self.cloud.region], "DBSubnetGroupName": SUBNET_GROUP,
            "VpcSecurityGroupIds": [SECURITY_GROUP], **options}))

        def available():
            [cluster] = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
            members = [rds.describe_db_instances(DBInstanceIdentifier=member["DBInstanceIdentifier"])["DBInstances"][0]
                       for member in cluster["DBClusterMembers"]]
            ready = all(member["DBInstanceStatus"] == "available" for member in members)
            return cluster["Status"] == "available" and ready and cluster
        cluster = until(f"cluster {name} available", available)
        if aurora:
            rds.create_db_instance(DBInstanceIdentifier=f"{name}-1", DBClusterIdentifier=name, Engine=engine,
                                   DBInstanceClass=member_class)
            cluster = until(f"cluster {name} available", available)
        kind = MariaDatabase if engine == "aurora-mysql" else Database
        return kind(self, {
            "DBInstanceIdentifier": name, "DBInstanceArn": cluster["DBClusterArn"], "DBName": cluster["DatabaseName"],
            "Endpoint": {"Address": cluster["Endpoint"], "Port": cluster["Port"]},
            "MasterUserSecret": cluster["MasterUserSecret"]})

    # What chaos experiments touch

    def create_instances(self, *zones: str, tagged: bool = True, **options) -> list[str]:
        """An EC2 instance in each zone ("a", "b", "c"), running; returns their ids."""
        ec2 = self.cloud.client("ec2")
        tags = [{"ResourceType": "instance", "Tags": [MAY_BE_HARMED]}] if tagged else []
        names = [ec2.run_instances(
            ImageId=IMAGE, MinCount=1, MaxCount=1, Placement={"AvailabilityZone": f"{self.cloud.region}{zone}"},
            TagSpecifications=tags, **options)["Instances"][0]["InstanceId"] for zone in zones]
        for name in names:
            until(f"instance {name} running", lambda name=name: self.instance(name)["State"]["Name"] == "running")
        return names

    def instance(self, name: str) -> dict:
        """An EC2 instance as it is described."""
        [reservation] = self.cloud.client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
        return reservation["Instances"][0]

    def create_scaling_group(self, name: str, desired: int, zones: str = "ab", tagged: bool = True, **options) -> str:
        """An Auto Scaling group, full (MinSize 1 and MaxSize 10 unless `options` say otherwise); returns its name."""
        scaling = self.cloud.client("autoscaling")
        scaling.create_launch_configuration(LaunchConfigurationName=name, ImageId=IMAGE, InstanceType="t3.micro")
        scaling.create_auto_scaling_group(**{
            "AutoScalingGroupName": name, "LaunchConfigurationName": name, "MinSize": 1, "MaxSize": 10,
            "DesiredCapacity": desired, "AvailabilityZones": [f"{self.cloud.region}{zone}" for zone in zones],
            "Tags": [{**MAY_BE_HARMED, "PropagateAtLaunch": True}] if tagged else [], **options})
        until(f"group {name} full", lambda: len(self.in_service(name)) == desired)
        return name

    def in_service(self, group: str) -> set[str]:
        """The instances of an Auto Scaling group that are in service and healthy."""
        [told] = self.cloud.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[group])["AutoScalingGroups"]
        return {member["InstanceId"] for member in told["Instances"]
                if (member["LifecycleState"], member["HealthStatus"]) == ("InService", "Healthy")}

    def create_target_group(self, name: str, instances: list[str], tagged: bool = True, zones: str = "abc") -> str:
        """A target group behind a load balancer in these zones, its instances healthy; returns its ARN."""
        balancing, ec2 = self.cloud.client("elbv2"), self.cloud.client("ec2")
        [network] = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
        subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]
                   if subnet["DefaultForAz"] and subnet["AvailabilityZone"][-1] in zones]
        arn = balancing.create_target_group(
            Name=name, Protocol="HTTP", Port=80, VpcId=network["VpcId"],
            **({"Tags": [MAY_BE_HARMED]} if tagged else {}))["TargetGroups"][0]["TargetGroupArn"]
        balancer = balancing.create_load_balancer(Name=name, Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
        balancing.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80,
                                  DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}])
        if instances:
            balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": instance} for instance in instances])
        until(f"targets of {name} healthy", lambda: set(self.target_health(arn).values()) <= {"healthy"})
        return arn

    def target_health(self, arn: str) -> dict[str, str]:
        """The state of each target of a group, by its id."""
        told = self.cloud.client("elbv2").describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {each["Target"]["Id"]: each["TargetHealth"]["State"] for each in told}

    def create_alarm(self, name: str, state: str = "OK") -> str:
        """A CloudWatch alarm in a state, which is set by hand; returns its ARN."""
        alarms = self.cloud.client("cloudwatch")
        alarms.put_metric_alarm(
            AlarmName=name, Namespace="Lifeboat/Tests", MetricName=name, Statistic="Sum", Period=86_400, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanThreshold")
        self.set_alarm(name, state)
        return alarms.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["AlarmArn"]

    def set_alarm(self, name: str, state: str) -> None:
        """Puts an alarm into OK, ALARM or INSUFFICIENT_DATA."""
        self.cloud.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason="set by a test")

    # Executions

    def start(self, machine: str, request, name: str | None = None) -> str:
        """Starts `BackupOrchestration`, `ProveBackup` or `FleetBackup` with a request; returns the execution's ARN."""
        options = {"name": name} if name else {}
        return self.cloud.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs[f"{machine}Arn"], input=json.dumps(request), **options)["executionArn"]

    def as_superuser(self, database: "Database", *statements: str) -> None:
        """Runs SQL as RDS itself would: as the superuser, who logs in on the server's own socket."""
        told = self.cloud.control("state")["regions"][self.cloud.region]["instances"][database.name]
        [lock] = Path(told["dir"]).rglob("postmaster.pid")
        _, _, _, port, socket, *_ = lock.read_text().splitlines()
        commands = [part for statement in statements for part in ("-c", statement)]
        subprocess.run(database.tool("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", socket, "-p", port, "-U", "rdsadmin",
                                     "-d", database.database, *commands), check=True, capture_output=True, text=True)

    def start_damaged(self, request, database: str, kind: dict) -> str:
        """Starts a backup whose snapshot is damaged when it was taken and before it is restored: the execution waits for
        that, so that no machine is too slow for it. Returns its ARN."""
        name = f"damaged-{uuid.uuid4().hex[:12]}"
        damage = {"region": self.cloud.region, "snapshot": "{Input.snapshotId}", "database": database, "kind": kind}
        self.cloud.order("orders", {"execution": name, "state": "ValidateBackup", "effect": {
            "first": {"url": f"{self.cloud.rds_endpoint}/_rds-local/damage", "body": damage}}})
        return self.start("BackupOrchestration", request, name)

    def finish(self, execution: str, seconds: float = 360.0) -> dict:
        """Waits until an execution ends; returns its description with `output` decoded."""
        states = self.cloud.client("stepfunctions")

        def ended():
            description = states.describe_execution(executionArn=execution)
            return description["status"] != "RUNNING" and description
        try:
            description = until(f"execution {execution} ended", ended, seconds, pause=0.2)
        except StageError as error:
            last = [event["stateEnteredEventDetails"]["name"] for event in self.history(execution)
                    if "stateEnteredEventDetails" in event][-6:]
            raise StageError(f"{error}; the last states entered: {', '.join(last)}") from None
        if description.get("output"):
            description["output"] = json.loads(description["output"])
        return description

    def run(self, machine: str, request, seconds: float = 180.0) -> dict:
        """Starts an execution and waits for its end."""
        return self.finish(self.start(machine, request), seconds)

    def history(self, execution: str) -> list[dict]:
        """All events of an execution."""
        pages = self.cloud.client("stepfunctions").get_paginator("get_execution_history")
        return [event for page in pages.paginate(executionArn=execution) for event in page["events"]]

    def operation(self, execution: str) -> dict | None:
        """The operation's record that belongs to an execution, by the index that people use."""
        for kind in ("backup", "proof", "fleet", "chaos"):
            for record in self._records(kind):
                if record["execution"]["S"] == execution:
                    return plain({"M": record})
        return None

    def invoke(self, function: str, payload) -> tuple[dict | None, dict | None]:
        """Invokes a function by its output's name (`UpdateState`); returns (answer, error)."""
        done = self.cloud.client("lambda").invoke(
            FunctionName=self.outputs[f"{function}FunctionName"], Payload=json.dumps(payload).encode())
        body = json.loads(done["Payload"].read())
        return (None, body) if done.get("FunctionError") else (body, None)

    @staticmethod
    def now() -> str:
        """The time as the functions take it."""
        return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")

    def alerts(self, topic: str) -> list[dict]:
        """Takes what arrived on a topic since the last look: subject and message."""
        sqs, taken = self.cloud.client("sqs"), []
        while True:
            batch = sqs.receive_message(QueueUrl=self._queues[topic], MaxNumberOfMessages=10).get("Messages", [])
            if not batch:
                return taken
            for message in batch:
                sqs.delete_message(QueueUrl=self._queues[topic], ReceiptHandle=message["ReceiptHandle"])
                body = json.loads(message["Body"])
                taken.append({"subject": body.get("Subject", ""), "message": body["Message"]})

    def report(self, key: str) -> dict:
        """A proof's full report."""
        s3 = self.cloud.client("s3")
        return json.loads(s3.get_object(Bucket=self.outputs["MetadataBucketName"], Key=key)["Body"].read())

    # What is left behind

    def leftovers(self) -> list[str]:
        """Temporary instances and clusters, their secrets and locks: nothing of this may outlive an operation."""
        found = []
        for region in (self.cloud.region, *TARGET_REGIONS):
            pages = self.cloud.client("rds", region).get_paginator("describe_db_instances").paginate()
            for instance in (instance for page in pages for instance in page["DBInstances"]):
                if instance["DBInstanceIdentifier"].startswith("lifeboat-tmp-"):
                    found.append(f"{region}: instance {instance['DBInstanceIdentifier']}")
            pages = self.cloud.client("rds", region).get_paginator("describe_db_clusters").paginate()
            for cluster in (cluster for page in pages for cluster in page["DBClusters"]):
                if cluster["DBClusterIdentifier"].startswith("lifeboat-tmp-"):
                    found.append(f"{region}: cluster {cluster['DBClusterIdentifier']}")
        pages = self.cloud.client("secretsmanager").get_paginator("list_secrets").paginate()
        for secret in (secret for page in pages for secret in page["SecretList"]):
            if secret["Name"].startswith("lifeboat/tmp/") and "DeletedDate" not in secret:
                found.append(f"secret {secret['Name']}")
        return found + [f"lock {lock['operationId']['S']}" for lock in self._records("lock")]

    def _records(self, kind: str):
        """All records of a kind, newest first. They outgrow one answer of DynamoDB (1 MB) in one run of the tests."""
        pages = self.cloud.client("dynamodb").get_paginator("query").paginate(
            TableName=self.outputs["StateTableName"], IndexName="TypeTimeIndex", ScanIndexForward=False,
            KeyConditionExpression="#t = :kind", ExpressionAttributeNames={"#t": "type"},
            ExpressionAttributeValues={":kind": {"S": kind}})
        return (item for page in pages for item in page["Items"])


class Database:
    """A source database and how to reach it as its master user."""

    def __init__(self, stage: Stage, instance: dict):
        self.stage, self.name, self.arn = stage, instance["DBInstanceIdentifier"], instance["DBInstanceArn"]
        self.host, self.port = instance["Endpoint"]["Address"], instance["Endpoint"]["Port"]
        self.database = instance["DBName"]
        secret = stage.cloud.client("secretsmanager").get_secret_value(
            SecretId=instance["MasterUserSecret"]["SecretArn"])
        self.password = json.loads(secret["SecretString"])["password"]
        self.tools = postgresql_roots()[-1] / "bin"

    def environment(self) -> dict[str, str]:
        """libpq's variables. The password is passed in no other way."""
        return {**os.environ, "PGHOST": self.host, "PGPORT": str(self.port), "PGDATABASE": self.database,
                "PGUSER": MASTER, "PGPASSWORD": self.password, "PGSSLMODE": "verify-full",
                "PGSSLROOTCERT": self.stage.cloud.rds_ca_file}

    def sql(self, *statements: str) -> str:
        """Runs statements; returns what they print, unaligned."""
        commands = [part for statement in statements for part in ("-c", statement)]
        return self._psql(["-At", *commands])

    def script(self, path: Path, **variables) -> str:
        """Runs a psql script."""
        return self._psql([*(f"--set={name}={value}" for name, value in variables.items()), "-f", str(path)])

    def _psql(self, arguments: list[str]) -> str:
        done = subprocess.run([str(self.tools / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments],
                              env=self.environment(), text=True, stdin=subprocess.DEVNULL, capture_output=True,
                              check=False)
        if done.returncode:
            raise StageError(f"psql ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def tool(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of PostgreSQL's tools."""
        return [str(self.tools / name), *arguments]


def without_none(parameters: dict) -> dict:
    """Parameters without those that an option took back."""
    return {name: value for name, value in parameters.items() if value is not None}


class MariaDatabase(Database):
    """The same for MariaDB, by its command-line client."""

    def sql(self, *statements: str) -> str:
        """Runs statements; returns what they print, without names of columns."""
        done = subprocess.run(
            ["mariadb", "--no-defaults", "--protocol=tcp", "-h", self.host, "-P", str(self.port), "-u", MASTER, "-N",
             "-B", "--ssl-verify-server-cert", f"--ssl-ca={self.stage.cloud.rds_ca_file}", "-e", "; ".join(statements),
             self.database],
            env={**os.environ, "MYSQL_PWD": self.password}, text=True, stdin=subprocess.DEVNULL, capture_output=True,
            check=False)
        if done.returncode:
            raise StageError(f"mariadb ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()


def plain(value: dict):
    """DynamoDB's typed JSON as ordinary values."""
    [(kind, inner)] = value.items()
    if kind == "M":
        return {name: plain(item) for name, item in inner.items()}
    if kind == "L":
        return [plain(item) for item in inner]
    if kind == "N":
        return float(inner) if "." in inner else int(inner)
    return None if kind == "NULL" else inner


def together(*tasks):
    """Runs tasks at the same time; returns their results, or raises the first failure."""
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]

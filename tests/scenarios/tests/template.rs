//! template.yaml ↔ the state machines ↔ the functions, and what a local deployment drops without a word.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use scenarios::machine::{snake_case, strings};
use scenarios::template::one_or_many;
use scenarios::{Machine, Template, files};
use serde_json::{Value, json};

fn template() -> Template {
    Template::read().unwrap()
}

/// The functions: logical id and the name of the crate.
fn functions(template: &Template) -> BTreeMap<String, String> {
    let found = template.resources("AWS::Serverless::Function");
    found.keys().map(|id| ((*id).to_owned(), snake_case(id.strip_suffix("Function").unwrap()))).collect()
}

fn key() -> Value {
    json!({"Fn::If": ["CreatesKey", {"Fn::GetAtt": ["Key", "Arn"]}, {"Ref": "KmsKeyId"}]})
}

/// The logical id that a `Ref` or a `GetAtt` names.
fn target(value: &Value) -> &str {
    value["Ref"].as_str().or(value["Fn::GetAtt"][0].as_str()).unwrap_or_default()
}

/// The state machines' resources by the names of their files.
fn machine_resources(template: &Template) -> BTreeMap<String, (String, Value)> {
    template
        .resources("AWS::Serverless::StateMachine")
        .into_iter()
        .map(|(id, resource)| {
            let uri = resource["Properties"]["DefinitionUri"].as_str().unwrap();
            let name = uri.strip_prefix("stepfunctions/").unwrap().strip_suffix(".asl.json").unwrap();
            (name.to_owned(), (id.to_owned(), resource["Properties"].clone()))
        })
        .collect()
}

#[test]
fn every_function_has_a_crate_and_every_crate_a_function() {
    let template = template();
    let crates: BTreeSet<String> = std::fs::read_dir(files::root().join("functions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| files::root().join("functions").join(name).join("Cargo.toml").is_file())
        .collect();
    assert_eq!(functions(&template).into_values().collect::<BTreeSet<_>>(), crates);
    for (id, name) in functions(&template) {
        let properties = template.properties(&id);
        assert_eq!(properties["CodeUri"], format!("functions/{name}"), "{id}");
        assert_eq!(
            properties["FunctionName"],
            json!({"Fn::Sub": format!("${{AWS::StackName}}-{}", name.replace('_', "-"))})
        );
        assert_eq!(
            template.document["Resources"][&id]["Metadata"]["BuildMethod"], "rust-cargolambda",
            "{id}"
        );
    }
}

#[test]
fn every_function_is_traced_logged_for_a_while_and_hands_failures_on() {
    let template = template();
    assert_eq!(template.document["Parameters"]["Architecture"]["Default"], "arm64");
    for (id, name) in functions(&template) {
        let of = |property| template.of_function(&id, property);
        assert_eq!(of("Architectures"), &json!([{"Ref": "Architecture"}]), "{id}");
        assert_eq!(of("Runtime"), "provided.al2023", "{id}");
        assert_eq!(of("Tracing"), "Active", "{id}");
        assert!(of("MemorySize").is_u64(), "{id}");
        let queue = json!({"Fn::GetAtt": ["FailedInvocationsQueue", "Arn"]});
        assert_eq!(of("DeadLetterQueue"), &json!({"Type": "SQS", "TargetArn": queue}), "{id}");
        let on_failure = &of("EventInvokeConfig")["DestinationConfig"]["OnFailure"];
        assert_eq!(on_failure, &json!({"Type": "SQS", "Destination": queue}), "{id}");

        assert_eq!(of("LoggingConfig")["LogFormat"], "JSON", "{id}");
        let logs = template.properties(target(&of("LoggingConfig")["LogGroup"]));
        let group = format!("/aws/lambda/${{AWS::StackName}}-{}", name.replace('_', "-"));
        assert_eq!(logs["LogGroupName"], json!({"Fn::Sub": group}), "{id}");
    }
    for (id, group) in template.resources("AWS::Logs::LogGroup") {
        assert_eq!(group["Properties"]["RetentionInDays"], json!({"Ref": "LogRetentionDays"}), "{id}");
        assert_eq!(group["Properties"]["KmsKeyId"], key(), "{id}");
    }
}

#[test]
fn a_function_gets_the_variables_that_it_reads_and_no_others() {
    // Read by what all functions share, before they call another Region. Who writes that table is kept from nothing.
    let blocks = "CHAOS_REGION_BLOCKS_TABLE";
    let template = template();
    for (id, name) in functions(&template) {
        let variables = template.properties(&id)["Environment"]["Variables"].as_object();
        let mut given: BTreeSet<String> =
            variables.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        assert_eq!(given.remove(blocks), !["update_state", "chaos_runner"].contains(&name.as_str()), "{id}");
        let mut read = BTreeSet::new();
        for path in files::list(format!("functions/{name}/src"), ".rs").unwrap() {
            let source = files::text(&path).unwrap();
            let code = source.split("#[cfg(test)]").next().unwrap();
            read.extend(code.split('"').filter(|text| is_variable(text)).map(str::to_owned));
        }
        assert_eq!(given, read, "{id}");
    }
    let common = &template.document["Globals"]["Function"]["Environment"]["Variables"];
    let mut common: Vec<&String> = common.as_object().unwrap().keys().collect();
    common.sort();
    assert_eq!(common, ["ENABLE_CLOUDWATCH_METRICS", "LOG_LEVEL", "METRICS_NAMESPACE"]);
}

fn is_variable(text: &str) -> bool {
    (text.starts_with("DR_") || text.starts_with("CHAOS_"))
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn machines_and_substitutions_name_each_other() {
    let template = template();
    let resources = machine_resources(&template);
    let files: BTreeSet<String> =
        Machine::all().unwrap().iter().map(|machine| machine.file().to_owned()).collect();
    assert_eq!(resources.keys().cloned().collect::<BTreeSet<_>>(), files);

    let mut invoked = BTreeSet::new();
    for machine in Machine::all().unwrap().iter().filter(|machine| !machine.name.contains('/')) {
        let (id, properties) = &resources[&machine.name];
        let used: BTreeSet<&str> = strings(&machine.definition).into_iter().flat_map(substitutions).collect();
        let given = properties["DefinitionSubstitutions"].as_object().unwrap();
        assert_eq!(used, given.keys().map(String::as_str).collect(), "{id}");
        for (name, value) in given {
            assert!(name == "Region" || template.properties(target(value)).is_object(), "{id}: {name}");
            if let Some(function) = name.strip_suffix("Arn").filter(|name| name.ends_with("Function")) {
                assert_eq!(value, &json!({"Fn::GetAtt": [function, "Arn"]}), "{id}");
            } else if let Some(topic) = name.strip_suffix("TopicArn") {
                assert_eq!(value, &json!({"Ref": format!("{topic}Topic")}), "{id}");
            }
        }

        let role = target(&properties["Role"]);
        let may = |action: &str| -> BTreeSet<String> {
            let statements = template.statements(role);
            let of = statements
                .iter()
                .filter(|s| one_or_many(&s["Action"]).contains(&&json!(action)))
                // The children of a distributed Map are executions of the machine itself.
                .filter(|s| s["Sid"] != "StartsItsOwnChildren");
            of.flat_map(|s| one_or_many(&s["Resource"])).map(|r| target(r).to_owned()).collect()
        };
        let wants = |kind: &str| -> BTreeSet<String> {
            given
                .values()
                .map(target)
                .filter(|id| template.document["Resources"][id]["Type"] == kind)
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(may("lambda:InvokeFunction"), wants("AWS::Serverless::Function"), "{id}");
        assert_eq!(may("sns:Publish"), wants("AWS::SNS::Topic"), "{id}");
        assert_eq!(may("states:StartExecution"), wants("AWS::Serverless::StateMachine"), "{id}");
        invoked.extend(wants("AWS::Serverless::Function"));
    }
    let woken = |kind: &str, target: fn(&Value) -> &Value| -> BTreeSet<String> {
        let resources = template.resources(kind).into_values();
        resources.map(|of| self::target(target(&of["Properties"])).to_owned()).collect()
    };
    invoked.extend(woken("AWS::Scheduler::Schedule", |schedule| &schedule["Target"]["Arn"]));
    invoked.extend(woken("AWS::Events::Rule", |rule| &rule["Targets"][0]["Arn"]));
    let functions: BTreeSet<String> = functions(&template).into_keys().collect();
    assert_eq!(functions.difference(&invoked).collect::<Vec<_>>(), [""; 0], "nothing ever calls these");
}

fn substitutions(text: &str) -> Vec<&str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).collect()
}

#[test]
fn a_task_waits_a_little_longer_than_what_it_calls_may_take() {
    let template = template();
    let ids: BTreeMap<String, String> =
        functions(&template).into_iter().map(|(id, name)| (name, id)).collect();
    let machines = Machine::all().unwrap();
    for machine in &machines {
        for state in machine.states.values() {
            let Some((function, ..)) = state.call() else { continue };
            if state.waits_for_a_token() {
                continue;
            }
            let function = template.of_function(&ids[&function], "Timeout").as_u64().unwrap();
            let task = state.definition["TimeoutSeconds"].as_u64().unwrap();
            assert!((function + 30..=function + 60).contains(&task), "{}: {}", machine.name, state.name);
        }
    }
    let of = |name: &str| machines.iter().find(|machine| machine.name == name).unwrap();
    let child = of("prove_backup").definition["TimeoutSeconds"].as_u64().unwrap();
    let task =
        of("backup_orchestration").states["ValidateBackup"].definition["TimeoutSeconds"].as_u64().unwrap();
    let parent = of("backup_orchestration").definition["TimeoutSeconds"].as_u64().unwrap();
    assert!(child < task && task < parent, "the child ends first, so that it can dispose of its restore");
    let children = &of("fleet_backup/BackUpDatabases").states["BackUpDatabase"].definition;
    let (task, fleet) = (children["TimeoutSeconds"].as_u64().unwrap(), &of("fleet_backup").definition);
    let fleet = fleet["TimeoutSeconds"].as_u64().unwrap();
    assert!(parent < task && task < fleet, "a backup ends before the run that waits for it");
    let lease = u64::try_from(dr_core::changes::FLEET_LEASE.as_secs()).unwrap();
    assert!(fleet < lease, "a run holds its lock for as long as it can last");
    let experiment = of("chaos_experiment").definition["TimeoutSeconds"].as_u64().unwrap();
    let approval = template.document["Parameters"]["ChaosApprovalMinutes"]["MaxValue"].as_u64().unwrap() * 60;
    assert!(approval + 8 * 3_600 < experiment, "there is time for an experiment after the longest wait");
    assert!(experiment < lease, "an experiment holds its lock for as long as it can last");
    let runner = template.of_function(&ids["chaos_runner"], "Timeout").as_u64().unwrap();
    let lease = u64::try_from(dr_core::chaos::journal::LEASE.as_secs()).unwrap();
    assert!(runner * 2 <= lease, "who takes a journal over knows that no call of the last one is under way");
}

#[test]
fn state_machines_are_standard_logged_and_traced() {
    for (name, (_, properties)) in machine_resources(&template()) {
        assert_eq!(properties["Type"], "STANDARD", "{name}");
        assert_eq!(properties["Tracing"], json!({"Enabled": true}), "{name}");
        assert_eq!(properties["Logging"]["Level"], "ERROR", "{name}");
        assert_eq!(properties["Logging"]["Destinations"].as_array().unwrap().len(), 1, "{name}");
    }
}

#[test]
fn the_table_is_what_the_design_says() {
    let template = template();
    let table = template.properties("StateTable");
    assert_eq!(template.document["Parameters"]["StateTableName"]["Default"], "DisasterRecoveryState");
    assert_eq!(table["KeySchema"], json!([{"AttributeName": "operationId", "KeyType": "HASH"}]));
    let indexes: Vec<_> = table["GlobalSecondaryIndexes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|index| {
            let keys = &index["KeySchema"];
            [&index["IndexName"], &keys[0]["AttributeName"], &keys[1]["AttributeName"]]
                .map(|v| v.as_str().unwrap())
        })
        .collect();
    assert_eq!(
        indexes,
        [
            ["TypeStatusIndex", "type", "status"],
            ["TypeTimeIndex", "type", "startedAt"],
            ["ResourceTimeIndex", "resourceId", "startedAt"],
        ]
    );
    assert_eq!(table["TimeToLiveSpecification"], json!({"AttributeName": "expiresAt", "Enabled": true}));
    assert_eq!(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    assert_eq!(table["StreamSpecification"]["StreamViewType"], "NEW_AND_OLD_IMAGES");
    assert_eq!(
        table["SSESpecification"],
        json!({"SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": key()})
    );
    assert_eq!(table["DeletionProtectionEnabled"], true);
}

#[test]
fn the_bucket_is_versioned_private_encrypted_and_reached_over_tls_only() {
    let template = template();
    let bucket = template.properties("MetadataBucket");
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    let public = bucket["PublicAccessBlockConfiguration"].as_object().unwrap();
    assert!(public.len() == 4 && public.values().all(|value| value == true));
    let rule = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0];
    assert_eq!(rule["BucketKeyEnabled"], true);
    assert_eq!(
        rule["ServerSideEncryptionByDefault"],
        json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key()})
    );
    let rules = bucket["LifecycleConfiguration"]["Rules"].as_array().unwrap();
    let deleting: Vec<_> = rules.iter().filter(|rule| !rule["ExpirationInDays"].is_null()).collect();
    assert_eq!(rules.len(), 3);
    assert_eq!(deleting.len(), 1);
    assert_eq!(deleting[0]["Prefix"], "health/", "frames and reports of backups never expire");
    for (policy, action) in [
        ("MetadataBucketPolicy", "s3:*"),
        ("CriticalTopicPolicy", "sns:Publish"),
        ("WarningTopicPolicy", "sns:Publish"),
        ("InfoTopicPolicy", "sns:Publish"),
        ("FailedInvocationsQueuePolicy", "sqs:*"),
    ] {
        let statements = template.properties(policy)["PolicyDocument"]["Statement"].as_array().unwrap();
        let tls = statements.iter().find(|s| s["Sid"] == "TlsOnly").unwrap_or_else(|| panic!("{policy}"));
        assert_eq!((&tls["Effect"], &tls["Action"]), (&json!("Deny"), &json!(action)), "{policy}");
        assert_eq!(tls["Condition"], json!({"Bool": {"aws:SecureTransport": "false"}}), "{policy}");
    }
}

#[test]
fn what_holds_records_outlives_the_stack() {
    let template = template();
    for id in ["Key", "StateTable", "MetadataBucket"] {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(template.document["Resources"][id][policy], "Retain", "{id}");
        }
    }
    assert_eq!(template.properties("Key")["EnableKeyRotation"], true);
}

#[test]
fn topics_and_the_queue_are_encrypted() {
    let template = template();
    let topics = template.resources("AWS::SNS::Topic");
    assert_eq!(topics.keys().copied().collect::<Vec<_>>(), ["CriticalTopic", "InfoTopic", "WarningTopic"]);
    for (id, topic) in topics {
        assert_eq!(topic["Properties"]["KmsMasterKeyId"], key(), "{id}");
    }
    assert_eq!(template.properties("FailedInvocationsQueue")["SqsManagedSseEnabled"], true);
}

#[test]
fn the_schedule_waits_for_a_database_to_be_named_and_sends_a_backup_request() {
    let template = template();
    let schedule = template.properties("BackupScheduleRule");
    assert_eq!(schedule["State"], json!({"Fn::If": ["HasBackupDatabase", "ENABLED", "DISABLED"]}));
    assert_eq!(template.document["Parameters"]["BackupDatabase"]["Default"], "");
    assert_eq!(template.document["Parameters"]["BackupSchedule"]["Default"], "rate(6 hours)");
    assert!(schedule["Target"]["DeadLetterConfig"]["Arn"].is_object());
    let input = schedule["Target"]["Input"]["Fn::Sub"].as_str().unwrap();
    let input = input.replace("${BackupDatabase}", "prod-db").replace("${BackupRetentionDays}", "35");
    let request: dr_core::request::BackupRequest = serde_json::from_str(&input).unwrap();
    assert_eq!(request.lifecycle.delete_after_days, Some(35));
}

/// The text of an `Fn::Sub` with its variables replaced.
fn filled(text: &str, values: &[(&str, &str)]) -> Value {
    let filled = values
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    serde_json::from_str(&filled).unwrap()
}

#[test]
fn every_tier_has_a_schedule_that_waits_for_a_tag_and_sends_a_fleet_request() {
    let template = template();
    assert_eq!(template.document["Parameters"]["FleetTagKey"]["Default"], "");
    for (tier, fleet, every) in [
        ("Production", "production", "rate(6 hours)"),
        ("Staging", "staging", "rate(12 hours)"),
        ("Development", "development", "rate(1 day)"),
    ] {
        let schedule = template.properties(&format!("{tier}ScheduleRule"));
        assert_eq!(schedule["State"], json!({"Fn::If": ["HasFleets", "ENABLED", "DISABLED"]}), "{tier}");
        assert_eq!(schedule["ScheduleExpression"], json!({"Ref": format!("{tier}Schedule")}), "{tier}");
        assert_eq!(template.document["Parameters"][format!("{tier}Schedule")]["Default"], every);
        assert_eq!(schedule["FlexibleTimeWindow"]["Mode"], "FLEXIBLE", "{tier}");
        assert_eq!(target(&schedule["Target"]["Arn"]), "FleetBackup", "{tier}");
        assert!(schedule["Target"]["DeadLetterConfig"]["Arn"].is_object(), "{tier}");
        let value = format!("{tier}TagValue");
        let input = filled(
            schedule["Target"]["Input"]["Fn::Sub"].as_str().unwrap(),
            &[
                ("FleetTagKey", "Tier"),
                (&value, fleet),
                ("FleetMaxConcurrency", "10"),
                ("FleetToleratedPercent", "0"),
                ("BackupRetentionDays", "35"),
            ],
        );
        let request: dr_core::fleet::FleetRequest = serde_json::from_value(input).unwrap();
        assert_eq!(request.fleet, fleet);
        let tag = request.selector.unwrap().tag;
        assert_eq!((tag.key.as_str(), tag.value.as_str()), ("Tier", fleet));
    }
}

#[test]
fn old_recovery_points_are_proven_weekly_and_copies_where_there_is_a_home() {
    let template = template();
    let parameters = &template.document["Parameters"];
    assert_eq!(parameters["ProofSchedule"]["Default"], "cron(0 4 ? * SUN *)", "on by default");
    assert_eq!(parameters["HomeRegion"]["Default"], "");
    let random = template.properties("RandomProofScheduleRule");
    let copies = template.properties("CopyProofScheduleRule");
    assert_eq!(random["State"]["Fn::If"][0], "HasProofSchedule");
    assert_eq!(copies["State"]["Fn::If"][0], "HasHome");
    let inputs = [
        filled(random["Target"]["Input"]["Fn::Sub"].as_str().unwrap(), &[("ProofMinimumAgeDays", "7")]),
        filled(copies["Target"]["Input"].as_str().unwrap(), &[]),
    ];
    for (schedule, input) in [random, copies].into_iter().zip(inputs) {
        assert_eq!(target(&schedule["Target"]["Arn"]), "ProveBackup");
        assert!(schedule["Target"]["DeadLetterConfig"]["Arn"].is_object());
        let request: dr_core::request::ProofRequest = serde_json::from_value(input).unwrap();
        request.selector.unwrap().check().unwrap();
    }
}

#[test]
fn alarms_watch_what_the_machines_cannot_tell() {
    let template = template();
    let metrics = files::text("shared/aws/src/metrics.rs").unwrap();
    let mut watched = BTreeSet::new();
    for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
        let alarm = &alarm["Properties"];
        let name = alarm["MetricName"].as_str().unwrap();
        assert!(
            !name.starts_with("dr_") || metrics.contains(&format!("\"{name}\"")),
            "{id}: nothing writes {name}"
        );
        // Of an experiment's failures most are refusals. What is not put back has an alarm of its own.
        let warnings = ["NoBackupAlarm", "NoFleetAlarm", "ExperimentFailedAlarm"];
        let topic = if warnings.contains(&id) { "WarningTopic" } else { "CriticalTopic" };
        assert_eq!(alarm["AlarmActions"], json!([{"Ref": topic}]), "{id}");
        let dimension = target(&alarm["Dimensions"][0]["Value"]);
        watched.insert((name.to_owned(), dimension.to_owned()));
    }
    for metric in ["ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"] {
        for machine in ["BackupOrchestration", "ChaosExperiment", "FleetBackup", "ProveBackup"] {
            assert!(watched.contains(&(metric.to_owned(), machine.to_owned())), "{metric} of {machine}");
        }
    }
    for metric in ["dr_operation_total", "dr_circuit_breaker_open", "dr_experiments_stuck"] {
        assert!(watched.contains(&(metric.to_owned(), String::new())), "{metric}");
    }
    assert!(
        watched.contains(&("ApproximateNumberOfMessagesVisible".into(), "FailedInvocationsQueue".into()))
    );
}

#[test]
fn the_watchdog_is_always_awake_and_experiments_wait_to_be_given() {
    let template = template();
    let watchdog = template.properties("WatchdogScheduleRule");
    assert_eq!(watchdog["State"], "ENABLED");
    assert_eq!(watchdog["ScheduleExpression"], "rate(1 minute)");
    assert_eq!(target(&watchdog["Target"]["Arn"]), "ChaosRunnerFunction");
    assert_eq!(filled(watchdog["Target"]["Input"].as_str().unwrap(), &[]), json!({"watch": {}}));
    assert!(template.document["Resources"]["WatchdogScheduleRule"]["Condition"].is_null());
    for (name, sample) in [
        ("Daily", "daily"),
        ("Weekly", "weekly"),
        ("Monthly", "monthly"),
        ("Quarterly", "quarterly"),
        ("Annual", "annually"),
    ] {
        let schedule = template.properties(&format!("{name}ExperimentScheduleRule"));
        let (given, experiment) = (format!("Has{name}Experiment"), format!("Chaos{name}Experiment"));
        assert_eq!(schedule["State"], json!({"Fn::If": [given, "ENABLED", "DISABLED"]}), "{name}");
        assert_eq!(
            schedule["Target"]["Input"],
            json!({"Fn::If": [given, {"Ref": experiment}, "{}"]}),
            "{name}"
        );
        assert_eq!(schedule["ScheduleExpression"], json!({"Ref": format!("Chaos{name}Schedule")}), "{name}");
        assert_eq!(target(&schedule["Target"]["Arn"]), "ChaosExperiment", "{name}");
        assert!(schedule["Target"]["DeadLetterConfig"]["Arn"].is_object(), "{name}");
        assert_eq!(template.document["Parameters"][&experiment]["Default"], "", "{name} is off by default");
        let sample = files::json(format!("events/chaos_experiment/{sample}.json")).unwrap();
        // CloudFormation takes 4,096 bytes for a parameter.
        assert!(sample.to_string().len() < 4_096, "{name}");
    }
    let parameters = &template.document["Parameters"];
    assert_eq!(parameters["ChaosDryRun"]["Default"], "true", "the destructive choice is never the default");
    assert_eq!(parameters["ChaosRegionFault"]["Default"], "false");
}

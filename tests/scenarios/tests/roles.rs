//! What the functions' and the state machines' roles may do, as template.yaml says it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use scenarios::Template;
use scenarios::template::one_or_many;
use serde_json::{Value, json};

/// What each role may do, beyond its own log, traces and failure queue. A new call of AWS arrives here, too.
/// Each of them also reads which Regions it is kept from calling, where the stack's parameter says so.
const ALLOWED: [(&str, &[&str]); 15] = [
    (
        "UpdateStateRole",
        &[
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:DeleteItem",
            "dynamodb:ConditionCheckItem",
            "dynamodb:UpdateItem",
            "kms:Decrypt",
            "kms:DescribeKey",
            "states:DescribeExecution",
        ],
    ),
    (
        "CreateSnapshotRole",
        &[
            "rds:DescribeDBInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "rds:CreateDBSnapshot",
            "rds:CreateDBClusterSnapshot",
            "rds:AddTagsToResource",
            "kms:DescribeKey",
            "kms:CreateGrant",
            "kms:Decrypt",
            "dynamodb:GetItem",
        ],
    ),
    (
        "ValidateBackupRole",
        &[
            "rds:DescribeDBInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListBucket",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "kms:DescribeKey",
            "secretsmanager:GetSecretValue",
            "rds-db:connect",
            "dynamodb:GetItem",
        ],
    ),
    (
        "RestoreDatabaseRole",
        &[
            "rds:DescribeDBInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "rds:RestoreDBInstanceFromDBSnapshot",
            "rds:ModifyDBInstance",
            "rds:DeleteDBInstance",
            "rds:RestoreDBClusterFromSnapshot",
            "rds:CreateDBInstance",
            "rds:ModifyDBCluster",
            "rds:DeleteDBCluster",
            "rds:AddTagsToResource",
            "kms:DescribeKey",
            "kms:CreateGrant",
            "kms:Decrypt",
            "secretsmanager:CreateSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:TagResource",
            "secretsmanager:DeleteSecret",
            "dynamodb:GetItem",
        ],
    ),
    (
        "ReplicateToRegionRole",
        &[
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "rds:CopyDBSnapshot",
            "rds:CopyDBClusterSnapshot",
            "rds:AddTagsToResource",
            "rds:DeleteDBSnapshot",
            "rds:DeleteDBClusterSnapshot",
            "kms:DescribeKey",
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:GenerateDataKeyWithoutPlaintext",
            "dynamodb:GetItem",
        ],
    ),
    (
        "HealthCheckRole",
        &[
            "rds:DescribeDBInstances",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusters",
            "rds:DescribeDBClusterSnapshots",
            "rds:DescribeAccountAttributes",
            "rds:DescribeCertificates",
            "cloudwatch:GetMetricData",
            "secretsmanager:ListSecrets",
            "kms:DescribeKey",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "dynamodb:Query",
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "s3:PutObject",
            "sns:Publish",
        ],
    ),
    ("HealthScheduleRole", &["lambda:InvokeFunction"]),
    (
        "BackupOrchestrationRole",
        &[
            "lambda:InvokeFunction",
            "states:StartExecution",
            "states:DescribeExecution",
            "states:StopExecution",
            "events:PutTargets",
            "events:PutRule",
            "events:DescribeRule",
            "sns:Publish",
            "kms:Decrypt",
            "kms:GenerateDataKey",
        ],
    ),
    (
        "PlanFleetRole",
        &[
            "rds:DescribeDBInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListBucket",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "kms:DescribeKey",
            "dynamodb:GetItem",
        ],
    ),
    (
        "FleetBackupRole",
        &[
            "lambda:InvokeFunction",
            "states:StartExecution",
            "states:DescribeExecution",
            "states:StopExecution",
            "states:RedriveExecution",
            "events:PutTargets",
            "events:PutRule",
            "events:DescribeRule",
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListMultipartUploadParts",
            "s3:AbortMultipartUpload",
            "sns:Publish",
            "kms:Decrypt",
            "kms:GenerateDataKey",
        ],
    ),
    ("ProveBackupRole", &["lambda:InvokeFunction", "sns:Publish", "kms:Decrypt", "kms:GenerateDataKey"]),
    (
        "ChaosRunnerRole",
        &[
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:DeleteItem",
            "dynamodb:ConditionCheckItem",
            "dynamodb:Query",
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListBucket",
            "sns:Publish",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "kms:DescribeKey",
            "kms:VerifyMac",
            "secretsmanager:GetSecretValue",
            "states:DescribeExecution",
            "states:SendTaskSuccess",
            "rds:DescribeDBInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBSnapshots",
            "rds:DescribeDBClusterSnapshots",
            "rds:RebootDBInstance",
            "rds:StopDBInstance",
            "rds:StartDBInstance",
            "rds:FailoverDBCluster",
            "rds:StopDBCluster",
            "rds:StartDBCluster",
            "ec2:DescribeInstances",
            "ec2:DescribeSecurityGroups",
            "ec2:StopInstances",
            "ec2:StartInstances",
            "ec2:RebootInstances",
            "ec2:ModifyInstanceAttribute",
            "autoscaling:DescribeAutoScalingGroups",
            "autoscaling:SuspendProcesses",
            "autoscaling:ResumeProcesses",
            "autoscaling:UpdateAutoScalingGroup",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
            "elasticloadbalancing:DescribeTargetHealth",
            "elasticloadbalancing:DescribeTags",
            "elasticloadbalancing:RegisterTargets",
            "elasticloadbalancing:DeregisterTargets",
            "lambda:InvokeFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:GetFunctionConcurrency",
            "lambda:ListTags",
            "lambda:PutFunctionConcurrency",
            "lambda:DeleteFunctionConcurrency",
            "kms:CreateGrant",
            "cloudwatch:GetMetricData",
            "cloudwatch:DescribeAlarms",
        ],
    ),
    ("ChaosExperimentRole", &["lambda:InvokeFunction", "sns:Publish", "kms:Decrypt", "kms:GenerateDataKey"]),
    ("ExperimentScheduleRole", &["states:StartExecution"]),
    ("WatchdogScheduleRole", &["lambda:InvokeFunction"]),
];

#[test]
fn every_function_has_a_role_of_its_own() {
    let template = Template::read().unwrap();
    let mut roles = BTreeSet::new();
    for id in template.resources("AWS::Serverless::Function").into_keys() {
        let role = template.properties(id)["Role"]["Fn::GetAtt"][0].as_str().unwrap().to_owned();
        assert!(template.properties(&role).is_object(), "{id}: {role}");
        assert!(roles.insert(role), "{id} shares its role");
    }
}

#[test]
fn a_role_may_do_what_is_listed_and_nothing_else() {
    let template = Template::read().unwrap();
    let common = [
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "sqs:SendMessage",
    ];
    let of_the_service = ["DeliversLogs", "AttachesToTheNetwork"];
    for (role, actions) in ALLOWED {
        let allowed: BTreeSet<&str> = template
            .statements(role)
            .into_iter()
            .filter(|statement| !of_the_service.contains(&statement["Sid"].as_str().unwrap()))
            .flat_map(|statement| one_or_many(&statement["Action"]))
            .map(|action| action.as_str().unwrap())
            .filter(|action| !common.contains(action))
            .collect();
        assert_eq!(allowed, actions.iter().copied().collect(), "{role}");
    }
}

#[test]
fn no_role_may_do_anything_to_everything() {
    // These know no resources, or belong to Lambda and Step Functions themselves.
    let everywhere = [
        "Traces",
        "TracesExecutions",
        "DeliversLogs",
        "AttachesToTheNetwork",
        "LooksAtWhatKnowsNoResources",
        "AsksAlarms",
        "WakesWhatWaitsForApproval",
    ];
    let template = Template::read().unwrap();
    let roles = template.resources("AWS::IAM::Role");
    assert_eq!(roles.len(), 18);
    for role in roles.keys() {
        for statement in template.statements(role) {
            let sid =
                statement["Sid"].as_str().unwrap_or_else(|| panic!("{role}: a statement without a Sid"));
            assert_eq!(statement["Effect"], "Allow", "{role}: {sid}");
            for action in one_or_many(&statement["Action"]) {
                assert!(!action.as_str().unwrap().contains('*'), "{role}: {sid}: {action}");
            }
            let all = one_or_many(&statement["Resource"]).contains(&&json!("*"));
            assert_eq!(all, everywhere.contains(&sid), "{role}: {sid}");
        }
        assert!(template.properties(role)["ManagedPolicyArns"].is_null(), "{role}");
    }
}

#[test]
fn what_changes_or_deletes_stops_at_our_prefix() {
    let template = Template::read().unwrap();
    let mut seen = 0;
    for role in template.resources("AWS::IAM::Role").keys() {
        for statement in template.statements(role) {
            for action in one_or_many(&statement["Action"]) {
                let snapshots: &[&str] = &[":snapshot:lifeboat-*", ":cluster-snapshot:lifeboat-*"];
                let prefixes: &[&str] = match action.as_str().unwrap() {
                    "rds:DeleteDBInstance" | "rds:ModifyDBInstance" => &[":db:lifeboat-tmp-*"],
                    "rds:DeleteDBCluster" | "rds:ModifyDBCluster" => &[":cluster:lifeboat-tmp-*"],
                    "rds:DeleteDBSnapshot" | "rds:DeleteDBClusterSnapshot" => snapshots,
                    "secretsmanager:DeleteSecret" | "secretsmanager:CreateSecret" => {
                        &[":secret:lifeboat/tmp/*"]
                    }
                    _ => continue,
                };
                seen += 1;
                for resource in one_or_many(&statement["Resource"]) {
                    let resource = resource["Fn::Sub"].as_str().unwrap();
                    assert!(
                        prefixes.iter().any(|prefix| resource.ends_with(prefix)),
                        "{role}: {action} on {resource}"
                    );
                }
                if prefixes == snapshots {
                    let regions = &statement["Condition"]["StringEquals"]["aws:RequestedRegion"];
                    assert_eq!(regions, &json!({"Ref": "TargetRegions"}), "never where the source is");
                }
            }
        }
    }
    assert_eq!(seen, 8);
}

#[test]
fn members_are_made_in_temporary_clusters_only() {
    let template = Template::read().unwrap();
    for role in template.resources("AWS::IAM::Role").keys() {
        for statement in template.statements(role) {
            if !one_or_many(&statement["Action"]).contains(&&json!("rds:CreateDBInstance")) {
                continue;
            }
            for resource in one_or_many(&statement["Resource"]) {
                let resource = resource["Fn::Sub"].as_str().unwrap();
                let database = resource.contains(":db:") || resource.contains(":cluster:");
                assert!(!database || resource.ends_with(":lifeboat-tmp-*"), "{role}: {resource}");
            }
        }
    }
}

/// What breaks things is allowed on what carries the tag, or on what the parameters list; in the stack's Regions only.
#[test]
fn what_an_experiment_may_change_carries_the_tag_or_is_listed() {
    let template = Template::read().unwrap();
    let policies = template.properties("ChaosRunnerRole")["Policies"].as_array().unwrap();
    let (breaks, rest): (Vec<_>, Vec<_>) =
        policies.iter().partition(|policy| policy["PolicyName"] == "breaks");
    let of = |policies: &[&Value]| -> Vec<Value> {
        let all =
            policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
        all.cloned().collect()
    };
    let regions = json!({"Fn::Split": [",", {"Fn::Join": [",", [
        {"Ref": "AWS::Region"}, {"Ref": "HomeRegion"}, {"Fn::Join": [",", {"Ref": "TargetRegions"}]}]]}]});
    let mut changes = BTreeSet::new();
    for statement in of(&breaks) {
        let listed = statement["Fn::If"][0] == "HasListed";
        let statement = if listed { &statement["Fn::If"][1] } else { &statement };
        let equals = &statement["Condition"]["StringEquals"];
        assert_eq!(equals["aws:RequestedRegion"], regions, "{statement}");
        let actions = one_or_many(&statement["Action"]);
        if actions == [&json!("ec2:ModifyInstanceAttribute")] {
            // The groups of a machine; the machine itself is authorised, too.
            let groups = statement["Resource"]["Fn::Sub"].as_str().unwrap();
            assert!(groups.ends_with(":security-group/*"), "{groups}");
            continue;
        }
        assert!(listed || equals["aws:ResourceTag/dr:chaos"] == "allowed", "{statement}");
        if actions.contains(&&json!("kms:CreateGrant")) {
            // So that EC2 opens the volumes of what it starts: never a grant of our own.
            assert_eq!(
                statement["Condition"]["BoolIfExists"]["kms:GrantIsForAWSResource"], true,
                "{statement}"
            );
        }
        changes.extend(actions.into_iter().map(|action| action.as_str().unwrap().to_owned()));
    }
    assert_eq!(changes.len(), 19, "{changes:?}");
    for statement in of(&rest) {
        let statement = if statement["Fn::If"].is_null() { &statement } else { &statement["Fn::If"][1] };
        for action in one_or_many(&statement["Action"]) {
            assert!(!changes.contains(action.as_str().unwrap()), "{statement}");
        }
    }
}

/// Parameters as a large installation has them, and what `Ref` and `Fn::GetAtt` give for everything else.
fn value_of(name: &str) -> Value {
    match name {
        "AWS::Partition" => json!("aws"),
        "AWS::Region" | "HomeRegion" => json!("ap-southeast-2"),
        "AWS::AccountId" => json!("123456789012"),
        "AWS::StackName" => json!("lifeboat-production"),
        "TargetRegions" => json!(["ap-southeast-1", "ap-northeast-1", "eu-central-1"]),
        "ChaosEc2Ids" => json!(["i-0123456789abcdef0", "i-0123456789abcdef1"]),
        "ChaosAsgNames" => json!(["manufacturing-api-asg", "manufacturing-worker-asg"]),
        "ChaosFunctionNames" => json!(["manufacturing-notifier"]),
        "ChaosTargetGroupArns"
        | "ChaosApproverKeyArns"
        | "ChaosChannelTopicArns"
        | "HomeKeyArns"
        | "SourceSecretArns"
        | "DatabaseUserArns" => json!(["a".repeat(110), "b".repeat(110)]),
        _ => json!("arn:aws:service:ap-southeast-2:123456789012:of-the-longer-kind/lifeboat-production-name"),
    }
}

/// What CloudFormation makes of a part of the template in which all conditions hold.
fn evaluated(part: &Value) -> Value {
    match part {
        Value::Array(items) => items.iter().map(evaluated).collect(),
        Value::Object(members) => {
            let single = members.iter().next().filter(|_| members.len() == 1);
            match single.map(|(name, inner)| (name.as_str(), inner)) {
                Some(("Ref", name)) => value_of(name.as_str().unwrap()),
                Some(("Fn::GetAtt", path)) => value_of(&path.to_string()),
                Some(("Fn::If", choice)) => evaluated(&choice[1]),
                Some(("Fn::Sub", text)) => json!(substituted(text.as_str().unwrap())),
                Some(("Fn::Join", join)) => json!(joined(&join[0], &evaluated(&join[1]))),
                Some(("Fn::Split", split)) => {
                    let text = evaluated(&split[1]);
                    text.as_str().unwrap().split(split[0].as_str().unwrap()).map(|part| json!(part)).collect()
                }
                _ => members.iter().map(|(name, inner)| (name.clone(), evaluated(inner))).collect(),
            }
        }
        text => text.clone(),
    }
}

fn substituted(text: &str) -> String {
    let mut parts = text.split("${");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| {
        let (name, rest) = part.split_once('}').unwrap();
        format!("{done}{}{rest}", value_of(name).as_str().unwrap())
    })
}

fn joined(between: &Value, parts: &Value) -> String {
    let parts: Vec<&str> = parts.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    parts.join(between.as_str().unwrap())
}

/// IAM counts the characters of all policies in a role, without white space: 10,240 at most.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
#[test]
fn a_roles_policies_fit_into_a_role_also_where_every_condition_holds() {
    let template = Template::read().unwrap();
    for (id, role) in template.resources("AWS::IAM::Role") {
        let policies = role["Properties"]["Policies"].as_array().unwrap();
        let size: usize =
            policies.iter().map(|policy| evaluated(&policy["PolicyDocument"]).to_string().len()).sum();
        assert!(size <= 10_240, "{id}: {size} characters");
    }
}

/// What the parameters list becomes one ARN for each name; what is not given becomes an ARN without a name.
#[test]
fn lists_of_names_become_a_list_of_arns() {
    let template = Template::read().unwrap();
    let statements = template.statements("ChaosRunnerRole");
    let listed = statements.iter().find(|statement| statement["Sid"] == "ChangesWhatIsListed").unwrap();
    assert_eq!(
        evaluated(&listed["Resource"]),
        json!([
            "arn:*:ec2:*:*:instance/i-0123456789abcdef0",
            "arn:*:ec2:*:*:instance/i-0123456789abcdef1",
            "arn:*:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/manufacturing-api-asg",
            "arn:*:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/manufacturing-worker-asg",
            "arn:*:lambda:*:*:function:manufacturing-notifier",
            "a".repeat(110),
            "b".repeat(110),
        ])
    );
}

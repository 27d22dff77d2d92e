//! The rest of the small AWS: the state table, topics, objects, quotas, authorities and metrics.

use serde_json::{Value, json};

use super::world::State;
use super::{Reply, Sent, rds_answer, xml_members};

/// Answers what is asked of them; `None` for everything else.
pub(super) fn perform(state: &mut State, sent: &Sent) -> Option<Reply> {
    Some(match sent.action.as_str() {
        "DescribeAccountAttributes" => quotas(state, sent),
        "DescribeCertificates" => certificates(state, sent),
        "GetMetricData" => metrics(state, sent),
        "ListSecrets" => secrets(state),
        "GetItem" => {
            let request = sent.json();
            let key = request["Key"]["operationId"]["S"].as_str().unwrap_or_default();
            Reply::ok(state.items.get(key).map_or(json!({}), |item| json!({"Item": item})).to_string())
        }
        "Query" => query(state, &sent.json()),
        "TransactWriteItems" => transact(state, &sent.json()),
        "Publish" => {
            let message = ["TopicArn", "Subject", "Message"].map(|name| sent.parameter(name));
            state.published.push(message);
            Reply::ok(
                "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>",
            )
        }
        "PUT" => {
            let key =
                sent.uri.split('?').next().unwrap_or_default().splitn(4, '/').nth(3).unwrap_or_default();
            state.objects.insert(key.to_owned(), sent.body.clone());
            Reply::ok("")
        }
        _ => return None,
    })
}

fn quotas(state: &State, sent: &Sent) -> Reply {
    let of_region = state.quotas.iter().filter(|((region, _), _)| region == sent.region());
    let list: Vec<String> = of_region
        .map(|((_, name), (used, max))| {
            let members =
                [("AccountQuotaName", name.as_str()), ("Used", &used.to_string()), ("Max", &max.to_string())];
            format!("<AccountQuota>{}</AccountQuota>", xml_members(&members))
        })
        .collect();
    let xml = list.concat();
    rds_answer(&sent.action, &format!("<AccountQuotas>{xml}</AccountQuotas>"))
}

fn certificates(state: &State, sent: &Sent) -> Reply {
    let of_region = state.certificates.iter().filter(|((region, _), _)| region == sent.region());
    let list: Vec<String> = of_region
        .map(|((_, id), valid_till)| {
            let members = [("CertificateIdentifier", id.as_str()), ("ValidTill", valid_till.as_str())];
            format!("<Certificate>{}</Certificate>", xml_members(&members))
        })
        .collect();
    let xml = list.concat();
    rds_answer(&sent.action, &format!("<Certificates>{xml}</Certificates>"))
}

fn metrics(state: &State, sent: &Sent) -> Reply {
    let request = sent.json();
    let queries = request["MetricDataQueries"].as_array().cloned().unwrap_or_default();
    let results: Vec<Value> = queries
        .iter()
        .map(|query| {
            let metric = &query["MetricStat"]["Metric"];
            let at = [
                sent.region(),
                metric["Dimensions"][0]["Value"].as_str().unwrap_or_default(),
                metric["MetricName"].as_str().unwrap_or_default(),
            ]
            .map(str::to_owned);
            let values: Vec<f64> = state.metrics.get(&at).copied().into_iter().collect();
            let times: Vec<i64> = values.iter().map(|_| 1_768_046_340).collect();
            json!({"Id": query["Id"], "Timestamps": times, "Values": values, "StatusCode": "Complete"})
        })
        .collect();
    Reply::ok(json!({"MetricDataResults": results}).to_string())
}

fn secrets(state: &State) -> Reply {
    let list: Vec<Value> = state
        .secrets
        .keys()
        .map(|name| {
            let tags = state.secret_tags.get(name).into_iter().flatten();
            let tags: Vec<Value> = tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect();
            json!({"Name": name, "Tags": tags})
        })
        .collect();
    Reply::ok(json!({"SecretList": list}).to_string())
}

fn query(state: &State, request: &Value) -> Reply {
    let wanted = &request["ExpressionAttributeValues"][":t"]["S"];
    // An index holds only the items that have its attributes.
    let sorted_by = match request["IndexName"].as_str() {
        Some("TypeStatusIndex") => "status",
        Some("TypeTimeIndex") => "startedAt",
        _ => return Reply::json_error("ValidationException", "no such index"),
    };
    let found: Vec<&Value> = state
        .items
        .values()
        .filter(|item| item["type"]["S"] == *wanted && !item[sorted_by].is_null())
        .collect();
    Reply::ok(json!({"Items": found, "Count": found.len()}).to_string())
}

fn transact(state: &mut State, request: &Value) -> Reply {
    if let Some(write) = state.in_between.take() {
        write(&mut state.items);
    }
    let writes = request["TransactItems"].as_array().cloned().unwrap_or_default();
    let writes: Vec<&Value> = writes.iter().filter_map(|write| write.get("Put")).collect();
    let key_of = |write: &Value| write["Item"]["operationId"]["S"].as_str().unwrap_or_default().to_owned();
    let holds = |write: &Value| {
        let item = state.items.get(&key_of(write));
        match write["ConditionExpression"].as_str() {
            Some("attribute_not_exists(#c)") => item.is_none(),
            _ => item.is_some_and(|item| item["version"] == write["ExpressionAttributeValues"][":version"]),
        }
    };
    if !writes.iter().all(|write| holds(write)) {
        let body = json!({"__type": "TransactionCanceledException", "Message": "cancelled",
            "CancellationReasons": [{"Code": "ConditionalCheckFailed"}]});
        return Reply::Answer { status: 400, body: body.to_string() };
    }
    for write in writes {
        state.items.insert(key_of(write), write["Item"].clone());
    }
    Reply::ok("{}")
}

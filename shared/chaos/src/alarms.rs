//! CloudWatch alarms.

use dr_aws::clients::Clients;
use dr_aws::errors::Call;
use dr_aws::raw::{Raw, Request, read_json};
use dr_core::ids::Region;
use dr_core::observed::Observed;
use serde::Deserialize;
use serde_json::json;

/// `DescribeAlarmsOutput`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alarms {
    metric_alarms: Vec<Alarm>,
    #[serde(default)]
    composite_alarms: Vec<Alarm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alarm {
    alarm_name: String,
    state_value: String,
}

/// The state of an alarm, metric or composite: a name means one of both.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html>
pub(crate) async fn state(clients: &Clients, region: &Region, name: &str) -> Observed<String> {
    let call = Call::read("cloudwatch:DescribeAlarms", format!("reading alarm `{name}` in {region}"));
    let raw: Raw<Alarms> = Raw::new(clients.config(), "monitoring", region, read_json);
    // Composite alarms are left out unless they are asked for. One name fits on one page.
    let body = json!({"AlarmNames": [name], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]});
    let request = Request::json("GraniteServiceVersion20100801.DescribeAlarms", &body);
    match raw.ask(&call, request).await {
        Ok(answer) => {
            let mut alarms = answer.metric_alarms.into_iter().chain(answer.composite_alarms);
            let found = alarms.find(|alarm| alarm.alarm_name == name);
            found.map_or(Observed::Missing, |alarm| Observed::Found(alarm.state_value))
        }
        Err(refusal) => Observed::Unreachable(refusal.error),
    }
}

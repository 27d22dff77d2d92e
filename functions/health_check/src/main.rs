//! The Lambda function `health_check`.

// The futures of many SDK calls nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use dr_aws::clients::Clients;
use dr_core::Result;
use health_check::{Check, Config, Handler};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run("health_check", start(), async |handler: &Handler, payload: Value, invocation| {
        handler.handle(Check::read(payload)?, invocation.received_at, &invocation.request_id).await
    })
    .await
}

async fn start() -> Result<Handler> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    Ok(Handler { clients, config })
}

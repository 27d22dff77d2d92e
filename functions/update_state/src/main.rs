//! The Lambda function `update_state`.

// The futures of five SDK calls nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use dr_aws::clients::Clients;
use dr_aws::executions::Executions;
use dr_aws::state::StateTable;
use dr_core::Result;
use update_state::{Config, Handler, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run("update_state", start(), async |handler: &Handler, request: Request, invocation| {
        handler.handle(request, invocation).await
    })
    .await
}

async fn start() -> Result<Handler> {
    let config = Config::read(dr_aws::environment())?;
    let clients = Clients::from_environment().await?;
    Ok(Handler {
        table: StateTable::new(clients.dynamodb(), &config.table),
        executions: Executions::new(clients.config()),
        config,
    })
}

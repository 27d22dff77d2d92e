//! The Lambda function `chaos_runner`.

// The futures of many SDK calls nest deeper than the compiler follows by default.
#![recursion_limit = "256"]

use chaos_runner::{Config, Handler, Request};
use dr_aws::clients::Clients;
use dr_core::Result;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), lambda_runtime::Error> {
    dr_aws::run("chaos_runner", start(), async |handler: &Handler, request: Request, invocation| {
        handler.handle(request, invocation).await
    })
    .await
}

async fn start() -> Result<Handler> {
    let clients = Clients::from_environment().await?;
    let config = Config::read(dr_aws::environment(), clients.home())?;
    Handler::new(clients, config)
}

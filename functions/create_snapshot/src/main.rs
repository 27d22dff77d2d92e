//! The Lambda function `create_snapshot`.

use create_snapshot::{Request, handle};
use dr_aws::clients::Clients;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    dr_aws::run(
        "create_snapshot",
        Clients::from_environment(),
        async |clients: &Clients, request: Request, invocation| {
            handle(clients, request, invocation.received_at).await
        },
    )
    .await
}

//! SNS in the function's Region: publishing a message to a topic.

use dr_core::Result;

use crate::errors::Call;

/// SNS in the function's Region.
#[derive(Debug, Clone)]
pub struct Topics {
    client: aws_sdk_sns::Client,
}

impl Topics {
    /// SNS through `client`.
    pub fn new(client: aws_sdk_sns::Client) -> Self {
        Self { client }
    }

    /// Publishes a message. `subject` is at most 100 characters of ASCII, `text` at most 256 KiB. Not safe to repeat:
    /// each call is a message.
    ///
    /// # Errors
    /// The named error of the call `sns:Publish`.
    pub async fn publish(&self, topic_arn: &str, subject: &str, text: &str) -> Result<()> {
        let call = Call::write("sns:Publish", format!("publishing to `{topic_arn}`"));
        let sent = self.client.publish().topic_arn(topic_arn).subject(subject).message(text).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }
}

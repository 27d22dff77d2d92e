//! Secrets Manager in one Region: database credentials, and the short-lived secrets of temporary targets.
//!
//! Secrets are RDS-style JSON. Passwords never reach a log: [`Credentials`] prints without them.

use std::fmt;

use dr_core::ids::Region;
use dr_core::observed::Tags;
use dr_core::{DrError, ErrorName, Result};
use serde::{Deserialize, Serialize};

use crate::errors::{Call, code_of};

/// The content of an RDS-style secret. Members that others put into it are ignored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The database user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The operation that made the secret; only in secrets of ours. It says whose the secret is without a second
    /// call and a second permission for its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Characters of a fresh password: all of them allowed by RDS (which refuses `/`, `"`, `@` and spaces), and as many
/// as six bits can tell apart, so that every one is equally likely.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of a fresh password: 240 bits.
const PASSWORD_LENGTH: usize = 40;

/// A password from the operating system's random source.
///
/// # Errors
/// [`ErrorName::Internal`] when there is no random source.
pub fn fresh_password() -> Result<String> {
    let mut random = [0_u8; PASSWORD_LENGTH];
    getrandom::fill(&mut random).map_err(|error| {
        DrError::new(ErrorName::Internal, "making a password: no random source").with_source(error)
    })?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect())
}

/// What came of asking for a new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretStart {
    /// It exists now.
    Created,
    /// The name is taken, by us or by somebody else.
    NameTaken,
}

/// Secrets Manager in one Region.
#[derive(Debug, Clone)]
pub struct Secrets {
    client: aws_sdk_secretsmanager::Client,
    region: Region,
}

impl Secrets {
    /// Secrets Manager in `region` through `client`, which must be of that Region.
    pub fn new(client: aws_sdk_secretsmanager::Client, region: Region) -> Self {
        Self { client, region }
    }

    /// The text of a secret by name or ARN; `None` when it does not exist or is being deleted.
    ///
    /// # Errors
    /// The named error of the call `secretsmanager:GetSecretValue`.
    pub async fn text(&self, id: &str) -> Result<Option<String>> {
        let what = format!("reading secret `{id}` in {}", self.region);
        let call = Call::read("secretsmanager:GetSecretValue", what);
        match self.client.get_secret_value().secret_id(id).send().await {
            Ok(answer) => Ok(Some(answer.secret_string().unwrap_or_default().to_owned())),
            Err(fault) => match code_of(&fault) {
                // `InvalidRequestException` here means that the secret is marked for deletion.
                Some("ResourceNotFoundException" | "InvalidRequestException") => Ok(None),
                _ => Err(call.failure(fault)),
            },
        }
    }

    /// Reads a secret by name or ARN; `None` when it does not exist or is being deleted.
    ///
    /// # Errors
    /// [`ErrorName::CredentialsMissing`] when its content is not `{"username", "password"}`; else the named error of
    /// the call `secretsmanager:GetSecretValue`.
    pub async fn read(&self, id: &str) -> Result<Option<Credentials>> {
        let what = format!("reading secret `{id}` in {}", self.region);
        let Some(text) = self.text(id).await? else { return Ok(None) };
        // The cause is left out on purpose: serde repeats what it could not read.
        serde_json::from_str(&text).map(Some).map_err(|_| {
            DrError::new(
                ErrorName::CredentialsMissing,
                format!("{what}: its content is not JSON with `username` and `password`"),
            )
        })
    }

    /// Makes a secret.
    ///
    /// # Errors
    /// The named error of the call `secretsmanager:CreateSecret`.
    pub async fn create(&self, name: &str, content: &Credentials, tags: &Tags) -> Result<SecretStart> {
        let what = format!("creating secret `{name}` in {}", self.region);
        let text = serde_json::to_string(content)
            .map_err(|error| DrError::new(ErrorName::Internal, what.clone()).with_source(error))?;
        let call = Call::write("secretsmanager:CreateSecret", what);
        let tags = tags
            .iter()
            .map(|(key, value)| aws_sdk_secretsmanager::types::Tag::builder().key(key).value(value).build())
            .collect();
        let sent =
            self.client.create_secret().name(name).secret_string(text).set_tags(Some(tags)).send().await;
        match sent {
            Ok(_) => Ok(SecretStart::Created),
            Err(fault) if code_of(&fault) == Some("ResourceExistsException") => Ok(SecretStart::NameTaken),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Deletes a secret at once, without a recovery window. Deleting what is gone is a success.
    ///
    /// # Errors
    /// The named error of the call `secretsmanager:DeleteSecret`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let call = Call::write(
            "secretsmanager:DeleteSecret",
            format!("deleting secret `{name}` in {}", self.region),
        );
        let sent =
            self.client.delete_secret().secret_id(name).force_delete_without_recovery(true).send().await;
        match sent {
            Ok(_) => Ok(()),
            Err(fault) if code_of(&fault) == Some("ResourceNotFoundException") => Ok(()),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// The secrets whose name begins with `prefix`, with their tags and without their contents, over all pages. Those
    /// that are marked for deletion are left out.
    ///
    /// # Errors
    /// The named error of the call `secretsmanager:ListSecrets`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Tags)>> {
        use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
        let what = format!("listing the secrets `{prefix}*` in {}", self.region);
        let call = Call::read("secretsmanager:ListSecrets", what);
        let filter = Filter::builder().key(FilterNameStringType::Name).values(prefix).build();
        let mut pages = self.client.list_secrets().filters(filter).max_results(100).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            // The filter begins anew at each word of a name.
            let ours = page.secret_list().iter().filter(|secret| secret.deleted_date().is_none());
            for secret in ours {
                let Some(name) = secret.name().filter(|name| name.starts_with(prefix)) else { continue };
                let tags = secret.tags().iter().filter_map(|tag| {
                    Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))
                });
                found.push((name.to_owned(), tags.collect()));
            }
        }
        Ok(found)
    }

    /// Sets tags on a secret; other tags stay.
    ///
    /// # Errors
    /// The named error of the call `secretsmanager:TagResource`.
    pub async fn tag(&self, name: &str, tags: &Tags) -> Result<()> {
        let call =
            Call::write("secretsmanager:TagResource", format!("tagging secret `{name}` in {}", self.region));
        let tags = tags
            .iter()
            .map(|(key, value)| aws_sdk_secretsmanager::types::Tag::builder().key(key).value(value).build())
            .collect();
        self.client
            .tag_resource()
            .secret_id(name)
            .set_tags(Some(tags))
            .send()
            .await
            .map(|_| ())
            .map_err(|fault| call.failure(fault))
    }
}

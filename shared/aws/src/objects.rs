//! Objects in the metadata bucket. Encryption is the bucket's default; nothing here lists a bucket without a
//! prefix, and nothing is deleted.

use dr_core::{DrError, ErrorName, Result};

use crate::errors::{Call, code_of};

/// One bucket in the function's Region.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
}

/// Whether an object may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// An older object of this key becomes an older version.
    Allowed,
    /// An existing object of this key stays (`If-None-Match: *`).
    Refused,
}

/// What came of writing an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is written.
    Written,
    /// There was one already, and it was not to be written over.
    Existed,
}

impl Bucket {
    /// The bucket `name` through `client`.
    pub fn new(client: aws_sdk_s3::Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an object; `None` when there is none. Needs `s3:ListBucket` too: without it S3 answers 403 instead.
    ///
    /// # Errors
    /// [`ErrorName::MetadataBucketMissing`], or the named error of the call `s3:GetObject`.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let what = format!("reading s3://{}/{key}", self.name);
        let call = Call::read("s3:GetObject", what.clone());
        let answer = match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(answer) => answer,
            Err(fault) if code_of(&fault) == Some("NoSuchKey") => return Ok(None),
            Err(fault) => return Err(call.failure(fault)),
        };
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(error) => {
                let text = format!("{what}: the answer broke off");
                Err(DrError::new(ErrorName::AwsUnreachable, text).with_source(error))
            }
        }
    }

    /// Writes an object in one request. S3 takes up to 5 GiB so.
    ///
    /// # Errors
    /// [`ErrorName::MetadataBucketMissing`], or the named error of the call `s3:PutObject`.
    pub async fn put(
        &self,
        key: &str,
        body: Vec<u8>,
        content_type: &str,
        overwrite: Overwrite,
    ) -> Result<Put> {
        let call = Call::write("s3:PutObject", format!("writing s3://{}/{key}", self.name));
        let sent = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .content_type(content_type)
            .set_if_none_match((overwrite == Overwrite::Refused).then(|| "*".to_owned()))
            .body(body.into())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Put::Written),
            Err(fault) if code_of(&fault) == Some("PreconditionFailed") => Ok(Put::Existed),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// The keys that begin with `prefix`, in order, over all pages.
    ///
    /// # Errors
    /// [`ErrorName::MetadataBucketMissing`], or the named error of the call `s3:ListBucket`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let call = Call::read("s3:ListBucket", format!("listing s3://{}/{prefix}*", self.name));
        let mut pages =
            self.client.list_objects_v2().bucket(&self.name).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key()).map(str::to_owned));
        }
        Ok(keys)
    }

    /// Whether there is an object. Asked by listing: an answer to HEAD has no body, so it would not tell a missing
    /// object from a missing bucket.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn exists(&self, key: &str) -> Result<bool> {
        let call = Call::read("s3:ListBucket", format!("looking for s3://{}/{key}", self.name));
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(key)
            .max_keys(1)
            .send()
            .await
            .map_err(|fault| call.failure(fault))?;
        // Keys come in order, so the key itself comes before all that only begin with it.
        Ok(answer.contents().first().is_some_and(|object| object.key() == Some(key)))
    }
}

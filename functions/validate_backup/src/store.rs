//! Where records live between invocations, and under which keys.
//!
//! A stage is resumed by listing what is there. Nothing is deleted, and a unit that is stored is never done again.

use dr_aws::objects::{Bucket, Overwrite};
use dr_core::{DrError, ErrorName, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Objects that are read at the same time.
const PARALLEL_READS: usize = 16;

/// Named objects that outlive an invocation.
pub trait Store {
    /// Reads one; `None` when there is none.
    ///
    /// # Errors
    /// Of the storage.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>>>;

    /// Writes one, over an older one if need be.
    ///
    /// # Errors
    /// Of the storage.
    fn put(&self, key: &str, body: Vec<u8>) -> impl Future<Output = Result<()>>;

    /// Writes one, unless there is one already, which stays.
    ///
    /// # Errors
    /// Of the storage.
    fn put_new(&self, key: &str, body: Vec<u8>) -> impl Future<Output = Result<()>>;

    /// The keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// Of the storage.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<String>>>;
}

impl Store for Bucket {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Bucket::get(self, key).await
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<()> {
        Bucket::put(self, key, body, "application/json", Overwrite::Allowed).await.map(drop)
    }

    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<()> {
        Bucket::put(self, key, body, "application/json", Overwrite::Refused).await.map(drop)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Bucket::list(self, prefix).await
    }
}

/// The records of one operation in a store.
#[derive(Debug, Clone)]
pub struct Records<'s, S> {
    store: &'s S,
    operation: String,
}

impl<'s, S: Store> Records<'s, S> {
    /// The records of `operation`.
    pub fn of(store: &'s S, operation: impl Into<String>) -> Self {
        Self { store, operation: operation.into() }
    }

    /// The operation.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The full key of a record such as `frame/plan.json`.
    pub fn key(&self, name: &str) -> String {
        format!("operations/{}/{name}", self.operation)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`ErrorName::MetadataDamaged`] when it cannot be read back; of the storage.
    pub async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let key = self.key(name);
        let Some(body) = self.store.get(&key).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            // serde's message may quote a value; positions say enough.
            let place = format!("line {}, column {}", error.line(), error.column());
            DrError::new(
                ErrorName::MetadataDamaged,
                format!("reading the record `{key}`: malformed at {place}"),
            )
        })
    }

    /// Whether there is a record. Nothing of it is read.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn has(&self, name: &str) -> Result<bool> {
        let key = self.key(name);
        Ok(self.store.list(&key).await?.contains(&key))
    }

    /// Reads a record that must be there.
    ///
    /// # Errors
    /// `missing` when it is not; else as [`Self::read`].
    pub async fn expect<T: DeserializeOwned>(&self, name: &str, missing: ErrorName) -> Result<T> {
        let found = self.read(name).await?;
        found.ok_or_else(|| {
            DrError::new(missing, format!("reading the record `{}`: there is none", self.key(name)))
        })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn write<T: Serialize + Sync>(&self, name: &str, record: &T) -> Result<()> {
        let key = self.key(name);
        self.store.put(&key, body(&key, record)?).await
    }

    /// Writes a record, unless there is one already, which stays.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn write_once<T: Serialize + Sync>(&self, name: &str, record: &T) -> Result<()> {
        let key = self.key(name);
        self.store.put_new(&key, body(&key, record)?).await
    }

    /// The numbers of the records `<folder>/000123.json` that are there, in order.
    ///
    /// # Errors
    /// Of the storage.
    pub async fn numbers(&self, folder: &str) -> Result<Vec<u32>> {
        let prefix = self.key(&format!("{folder}/"));
        let keys = self.store.list(&prefix).await?;
        Ok(keys
            .iter()
            .filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok())
            .collect())
    }

    /// All numbered records of a folder, in order, a few at a time.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        let numbers = self.numbers(folder).await?;
        stream::iter(numbers)
            .map(|number| async move {
                self.expect(&numbered(folder, number), ErrorName::MetadataDamaged).await
            })
            .buffered(PARALLEL_READS)
            .try_collect()
            .await
    }
}

fn body<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| {
        DrError::new(ErrorName::Internal, format!("writing the record `{key}`")).with_source(error)
    })
}

/// The name of a numbered record.
pub fn numbered(folder: &str, number: u32) -> String {
    format!("{folder}/{number:06}.json")
}

//! The connection to ClickHouse: options, timeouts, and the translation of errors.

use async_recursion::async_recursion as boxed;
use std::{fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use clickhouse::query::Query;
use futures::future::BoxFuture;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use service::secret::{Password, Secret};

use crate::error::Error;
use crate::rows;

/// Where the warehouse is and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// HTTP interface, `http://host:8123` or `https://host:8443`.
    pub url: String,
    /// Database: a letter or `_`, then letters, digits and `_`.
    pub database: String,
    /// User; empty = ClickHouse's `default`.
    pub user: String,
    pub password: Secret,
    /// File whose first line is the password. It is read for each request, so that a new password
    /// needs no restart; while it cannot be read, `password` is used.
    pub password_file: Option<PathBuf>,
    /// Longest wait for a TCP connection.
    pub connect_timeout: Duration,
    /// Longest wait until ClickHouse takes one chunk of an insert. A longer time tolerates a busier
    /// engine; a shorter time notices a dead engine earlier.
    pub send_timeout: Duration,
    /// Longest wait for the answer to a query or an insert, from the last byte of the request to
    /// the last byte of the answer.
    pub receive_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "doseline".to_owned(),
            user: String::new(),
            password: Secret::default(),
            password_file: None,
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(30),
            receive_timeout: Duration::from_secs(60),
        }
    }
}

/// The return type of a query whose filter borrows. It is boxed, as `#[boxed]` does for the other
/// queries, so that the query is compiled in this crate and not in its callers.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// The warehouse: one database of one ClickHouse. Clones share the connections and are cheap.
#[derive(Clone)]
pub struct Warehouse {
    client: clickhouse::Client,
    options: Arc<Options>,
    /// Longest answer that is read, bytes.
    answer_bytes_max: usize,
}

impl fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warehouse").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Idle connections are closed before ClickHouse closes them, after 3 s by default. Otherwise the
/// next request would fail.
const POOL_IDLE: Duration = Duration::from_secs(2);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Statements of this length or more announce their length. Without the announcement the engine
/// refuses statements of 256 KiB and more.
const STATEMENT_BYTES: usize = 128 * 1024;

impl Warehouse {
    /// Prepares the connection and sends nothing.
    ///
    /// # Errors
    /// [`Error::Option`] for a URL or a database name that is not valid.
    pub fn new(options: Options) -> Result<Self, Error> {
        validate(&options)?;
        let mut connector = HttpConnector::new();
        connector.set_keepalive(Some(TCP_KEEPALIVE));
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = hyper_tls::HttpsConnector::new_with_connector(connector);
        let http = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE).build(connector);
        let mut client = clickhouse::Client::with_http_client(http)
            .with_url(options.url.trim_end_matches('/'))
            .with_database(&options.database)
            .with_product_info("doseline", env!("CARGO_PKG_VERSION"));
        if !options.user.is_empty() {
            client = client.with_user(&options.user);
        }
        if !options.password.reveal().is_empty() {
            client = client.with_password(options.password.reveal());
        }
        Ok(Self { client, options: Arc::new(options), answer_bytes_max: usize::MAX })
    }

    /// This warehouse with settings that go with every query, and with a limit of the answers that
    /// [`Warehouse::fetch`] reads.
    #[must_use]
    pub(crate) fn bounded(&self, settings: &[(&str, String)], answer_bytes_max: usize) -> Self {
        let with = |client: clickhouse::Client, (name, value): &(&str, String)| client.with_setting(*name, value);
        let client = settings.iter().fold(self.client.clone(), with);
        Self { client, options: Arc::clone(&self.options), answer_bytes_max }
    }

    /// The options that this warehouse was created with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn database(&self) -> &str {
        &self.options.database
    }

    /// The client itself, for formatted inserts. Translate its errors with [`Warehouse::error`].
    pub fn client(&self) -> clickhouse::Client {
        let client = self.client.clone();
        match self.options.password_file.clone().map(|file| Password::File(file).read()) {
            Some(Ok(password)) => client.with_password(password.reveal()),
            // ClickHouse tells if the earlier password does not fit any more.
            Some(Err(_)) | None => client,
        }
    }

    /// A query whose `?` are bound by value with `bind`. A literal `?` is written `??`.
    pub fn query(&self, sql: &str) -> Query {
        self.client().query(sql)
    }

    /// All rows of a query that [`Warehouse::query`] created.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TimedOut`], [`Error::Engine`], or [`Error::Answer`] if the
    /// rows do not have the shape of `T`.
    pub async fn fetch<T: DeserializeOwned + Send>(&self, query: Query) -> Result<Vec<T>, Error> {
        let mut rows = Vec::new();
        self.answer(query, &mut |answer| answer.take(&mut rows)).await?;
        Ok(rows)
    }

    /// Calls `take` with the answer after each piece that arrives.
    #[boxed]
    async fn answer(
        &self,
        query: Query,
        take: &mut (dyn FnMut(&mut rows::Answer) -> Result<(), rows::Fault> + Send),
    ) -> Result<(), Error> {
        let wrong = |fault| clickhouse::error::Error::Other(Box::new(fault));
        let read = async {
            let mut pieces = sized(query).fetch_bytes("RowBinaryWithNamesAndTypes")?;
            let mut answer = rows::Answer::default();
            let most = self.answer_bytes_max;
            let mut left = most;
            while let Some(piece) = pieces.next().await? {
                let too_long = || wrong(rows::Fault::Shape(format!("it has more than {most} bytes")));
                left = left.checked_sub(piece.len()).ok_or_else(too_long)?;
                answer.add(&piece).and_then(|()| take(&mut answer)).map_err(wrong)?;
            }
            answer.end().map_err(wrong)
        };
        self.in_time(read).await
    }

    /// Executes a query that [`Warehouse::query`] created and that returns no rows. Waits until
    /// ClickHouse has finished it.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TimedOut`] (the statement may still take effect) or
    /// [`Error::Engine`].
    #[boxed]
    pub async fn execute(&self, query: Query) -> Result<(), Error> {
        // Since ClickHouse 26.x inserts are asynchronous by default. Their answer would not mean
        // that the rows are written.
        let query = sized(query).with_setting("async_insert", "0").with_setting("wait_end_of_query", "1");
        self.in_time(query.execute()).await
    }

    /// All rows of raw SQL. A `?` has no special meaning in it.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn rows<T: DeserializeOwned + Send>(&self, sql: &str) -> Result<Vec<T>, Error> {
        self.fetch(self.client().query_raw(sql)).await
    }

    /// The only row of raw SQL that always returns one, for example a count.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn row<T: DeserializeOwned + Send>(&self, sql: &str) -> Result<T, Error> {
        let rows = self.rows(sql).await?;
        rows.into_iter().next().ok_or(Error::Answer(clickhouse::error::Error::RowNotFound))
    }

    /// Executes raw SQL that returns no rows. A `?` has no special meaning in it.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn command(&self, sql: &str) -> Result<(), Error> {
        self.execute(self.client().query_raw(sql)).await
    }

    /// Creates the database if it does not exist. This is the only statement that runs outside of
    /// it.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn create_database(&self) -> Result<(), Error> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}", self.database());
        let query = self.client().with_database("system").query_raw(&sql);
        self.execute(query).await
    }

    /// Translates an error of the client that [`Warehouse::client`] returns.
    pub fn error(&self, error: clickhouse::error::Error) -> Error {
        Error::from_client(error, &self.options.url, self.options.receive_timeout.as_secs())
    }

    /// Applies the receive timeout. A request that is dropped has an unknown outcome, as after any
    /// other timeout.
    async fn in_time<T>(&self, answer: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(self.options.receive_timeout, answer).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(self.error(clickhouse::error::Error::TimedOut)),
        }
    }
}

/// Lets the engine accept a statement of any length. The lists in a statement are bounded where
/// they are built ([`crate::sql::IDS_MAX`], Kafka's partitions); this covers their total.
fn sized(query: Query) -> Query {
    let bytes = query.sql_display().to_string().len();
    if bytes < STATEMENT_BYTES { query } else { query.with_setting("max_query_size", (2 * bytes).to_string()) }
}

fn validate(options: &Options) -> Result<(), Error> {
    let host = ["http://", "https://"].into_iter().find_map(|scheme| options.url.strip_prefix(scheme));
    let plain = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']));
    if !plain {
        let remedy = "write http://HOST:PORT or https://HOST:PORT; user and password have options of their own";
        // The URL may hold a password before its `@`.
        let value = options.url.rsplit('@').next().unwrap_or_default().to_owned();
        return Err(Error::Option { key: "clickhouse.url", value, remedy });
    }
    let mut letters = options.database.chars();
    let named = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !named {
        let remedy = "a database name is a letter, then letters, digits and _";
        return Err(Error::Option { key: "database", value: options.database.clone(), remedy });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let options = Options { password: Secret::new("hunter2"), ..Options::default() };
        let warehouse = Warehouse::new(options).unwrap();
        assert!(!format!("{warehouse:?}").contains("hunter2"));
        let url = "http://user:hunter2@host:1".to_owned();
        let error = Warehouse::new(Options { url, ..Options::default() }).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn options_are_checked() {
        for url in ["", "localhost:8123", "http://", "tcp://host:9000"] {
            assert!(Warehouse::new(Options { url: url.to_owned(), ..Options::default() }).is_err(), "{url}");
        }
        for database in ["", "1x", "a-b", "a b"] {
            assert!(Warehouse::new(Options { database: database.to_owned(), ..Options::default() }).is_err());
        }
    }

    #[tokio::test]
    async fn an_absent_engine_is_worth_a_retry() {
        let options = Options { url: "http://127.0.0.1:1".to_owned(), ..Options::default() };
        let error = Warehouse::new(options).unwrap().row::<u8>("SELECT 1").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert_eq!(error.advice(), crate::error::Advice::Retry);
    }
}

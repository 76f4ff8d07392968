//! The engine itself: its configuration files, its start, the connections that statements run on,
//! its end.

use super::exception::Exception;
use super::idle::{Idle, Prepared};
use super::library::{Connection, Library};
use super::reader::ReaderLimits;
use super::reply::Identity;
use super::request::Request;
use super::session::Sessions;
use super::workers::Workers;
use super::{Error, Options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Prefix of the `log_comment` by which a running statement can be found.
const KEY: &str = "doseline-";

/// How many sessions are kept at most. An idle session costs about 100 KiB.
const SESSIONS_MAX: usize = 256;

/// How many idle connections are kept for each one that may be in use. Requests use several
/// different sets of settings.
const IDLE_SHARE: usize = 2;

/// Rights that reach outside the engine. Rights to change users need not be revoked: no change can
/// be stored.
const OUTSIDE: [&str; 6] =
    ["SOURCES", "CREATE DICTIONARY", "CREATE FUNCTION", "NAMED COLLECTION ADMIN", "BACKUP", "INTROSPECTION"];

/// The allowed table engines. The others read and write files, call other servers, or have no use
/// here. Kafka is allowed because the loader is measured against it.
const TABLE_ENGINES: [&str; 10] = [
    "AggregatingMergeTree",
    "CollapsingMergeTree",
    "Join",
    "Kafka",
    "Memory",
    "MergeTree",
    "Null",
    "ReplacingMergeTree",
    "SummingMergeTree",
    "VersionedCollapsingMergeTree",
];

pub struct Engine {
    library: &'static Library,
    arguments: Vec<String>,
    /// Keeps the engine running between statements, and kills statements.
    keeper: Mutex<Option<Connection>>,
    /// One thread for work that must not wait for a free statement thread.
    errands: Workers,
    pub sessions: Sessions,
    /// Idle connections of statements outside of sessions.
    pub idle: Idle,
    /// What replies say about the engine.
    pub identity: Identity,
    /// The limits of a reader's statement.
    pub reader_limits: ReaderLimits,
    numbers: AtomicU64,
    /// Running statements that have a name from their client, by the key of their connection.
    names: Mutex<BTreeMap<String, Name>>,
}

/// The name that a client gave its statement.
#[derive(Clone)]
pub struct Name {
    /// The `query_id` of the request.
    pub query_id: String,
    /// Whether the statement is the owner's.
    pub owner: bool,
}

/// Keeps a statement's name registered until it is dropped.
pub struct Named<'e> {
    engine: &'e Engine,
    key: String,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.engine.lock_names().remove(&self.key);
    }
}

/// A statement that may have to be killed.
#[derive(Default)]
pub struct Running {
    gone: AtomicBool,
    /// The `log_comment` of its connection, while it runs and may be killed.
    key: Mutex<Option<String>>,
}

impl Running {
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Allows the statement to be killed from now on (`Some`), or no longer (`None`).
    pub fn set_key(&self, key: Option<&str>) {
        *service::lock(&self.key) = key.map(str::to_owned);
    }
}

impl Engine {
    /// Opens the library and starts the engine. This blocks for about 0.2 s, longer with many
    /// tables.
    ///
    /// # Errors
    /// The library cannot be opened, the configuration cannot be written, or the engine does not
    /// start.
    pub fn boot(options: &Options, data_dir: &Path) -> Result<Self, Error> {
        let library = Library::open(&options.library)
            .map_err(|reason| Error::Library { path: options.library.clone(), reason })?;
        put_empty_tables_aside(data_dir)
            .and_then(|()| write_configuration(options, data_dir))
            .map_err(|source| Error::DataDir { path: data_dir.to_owned(), source })?;
        let arguments = vec![
            format!("--path={}", data_dir.join("engine").display()),
            format!("--config-file={}", data_dir.join("server.xml").display()),
            "--log-level=warning".to_owned(),
        ];
        let boot = |reason: Exception| Error::Boot { path: data_dir.to_owned(), reason: reason.to_string() };
        let mut keeper = Connection::open(library, &arguments).map_err(boot)?;
        let about = keeper.query(b"SELECT version(), timezone()", "TSVRaw", &[]).map_err(boot)?;
        let about = String::from_utf8_lossy(about.bytes()).trim_end().to_owned();
        let (version, timezone) = about.split_once('\t').unwrap_or((&about, "UTC"));
        let identity = Identity { version: version.to_owned(), timezone: timezone.to_owned() };
        Ok(Self {
            library,
            arguments,
            keeper: Mutex::new(Some(keeper)),
            errands: Workers::start(1).map_err(Error::Threads)?,
            sessions: Sessions::new(SESSIONS_MAX),
            idle: Idle::new(options.connections_max.saturating_mul(IDLE_SHARE)),
            identity,
            reader_limits: ReaderLimits::new(
                options.memory_max_bytes.unwrap_or_else(half_of_machine),
                options.readers_max,
            ),
            numbers: AtomicU64::new(0),
            names: Mutex::default(),
        })
    }

    /// Opens a connection, which takes 0.8 ms. Returns it with the key by which its statements can
    /// be found. A reader's connection only has a reader's rights.
    ///
    /// # Errors
    /// The engine refuses the connection.
    pub fn connect(&self, owner: bool) -> Result<(Connection, String), Exception> {
        let key = format!("{KEY}{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--log_comment={key}"));
        let mut connection = Connection::open(self.library, &arguments)?;
        if !owner {
            connection.run(&self.reader_limits.statement())?;
            connection.run("SET ROLE reader")?;
        }
        Ok((connection, key))
    }

    /// Records the client's name for the statement that the connection with this key runs.
    pub fn name(&self, key: &str, request: &Request) -> Option<Named<'_>> {
        let query_id = request.query_id.clone()?;
        self.lock_names().insert(key.to_owned(), Name { query_id, owner: request.owner });
        Some(Named { engine: self, key: key.to_owned() })
    }

    /// The running statements that have a name.
    pub fn names(&self) -> BTreeMap<String, Name> {
        self.lock_names().clone()
    }

    fn lock_names(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        service::lock(&self.names)
    }

    /// A connection for a statement outside of sessions. The caller will set `settings` on it; they
    /// must be in ascending order of their names.
    ///
    /// # Errors
    /// The engine refuses the connection.
    pub fn prepare(
        &self,
        owner: bool,
        database: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Prepared, Exception> {
        if let Some(prepared) = self.idle.take(owner, database, settings) {
            return Ok(prepared);
        }
        let (connection, key) = self.connect(owner)?;
        Ok(Prepared { connection, owner, key, database: None, settings: Vec::new() })
    }

    /// Records that the client is gone, and kills the statement if that is allowed. It does not
    /// wait.
    pub fn abandon(self: &Arc<Self>, running: &Arc<Running>) {
        running.gone.store(true, Ordering::Release);
        let (engine, running) = (Arc::clone(self), Arc::clone(running));
        self.errands.submit(move || {
            // held meanwhile, so that the kill cannot hit the connection's next statement
            let key = service::lock(&running.key);
            if let Some(key) = &*key {
                engine.kill(&format!("Settings['log_comment'] = '{key}'"));
            }
        });
    }

    /// Kills all statements. It does not wait.
    pub fn abandon_all(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.errands.submit(move || engine.kill("query NOT LIKE 'KILL QUERY%'"));
    }

    /// `ASYNC`, because a finished statement stays listed until its connection closes. `SYNC` would
    /// wait for that.
    fn kill(&self, condition: &str) {
        if let Some(keeper) = &mut *service::lock(&self.keeper)
            && let Err(exception) = keeper.run(&format!("KILL QUERY WHERE {condition} ASYNC"))
        {
            tracing::warn!(%exception, "statement not killed");
        }
    }

    /// Closes idle connections. With its last connection the engine writes out its data and ends.
    /// This blocks.
    pub fn close(&self) {
        self.sessions.clear();
        self.idle.clear();
        self.errands.close();
        service::lock(&self.keeper).take();
    }
}

/// Writes the engine's configuration anew. It switches off what is not needed, because the engine
/// shares the machine's memory with the other roles.
fn write_configuration(options: &Options, data_dir: &Path) -> std::io::Result<()> {
    let memory = match options.memory_max_bytes {
        Some(bytes) => format!("<max_server_memory_usage>{bytes}</max_server_memory_usage>"),
        None => "<max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>".to_owned(),
    };
    let path = |name: &str| escape(&data_dir.join(name).display().to_string());
    let server = format!(
        "<!-- written at each start -->\n<clickhouse>\n  \
         <users_config>{users}</users_config>\n  <display_name>doseline</display_name>\n  \
         <logger><log>{log}</log><size>10M</size><count>2</count></logger>\n  {memory}\n  \
         <access_control_improvements><table_engines_require_grant>true</table_engines_require_grant></access_control_improvements>\n  \
         <mark_cache_size>268435456</mark_cache_size>\n  \
         <background_pool_size>4</background_pool_size>\n  \
         <background_common_pool_size>2</background_common_pool_size>\n  \
         <background_schedule_pool_size>8</background_schedule_pool_size>\n  \
         <background_move_pool_size>1</background_move_pool_size>\n  \
         <background_fetches_pool_size>1</background_fetches_pool_size>\n  \
         <memory_worker_period_ms>1000</memory_worker_period_ms>\n  \
         <merge_tree>\n    \
         <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>\n    \
         <number_of_free_entries_in_pool_to_lower_max_size_of_merge>4</number_of_free_entries_in_pool_to_lower_max_size_of_merge>\n    \
         <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>4</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>\n  \
         </merge_tree>\n</clickhouse>\n",
        users = path("users.xml"),
        log = path("engine.log"),
    );
    // A connection starts with both roles, and a reader's connection gives up the owner's. Neither
    // role may read or write files, or call programs or other servers. No part of doseline needs
    // that.
    let grants = |statements: &[String]| -> String {
        statements.iter().map(|statement| format!("<query>{}</query>", escape(statement))).collect()
    };
    let revoked = OUTSIDE.map(|right| format!("REVOKE {right} ON *.*"));
    let engines = TABLE_ENGINES.map(|engine| format!("GRANT TABLE ENGINE ON {engine}"));
    let all = ["GRANT ALL ON *.*".to_owned(), "REVOKE TABLE ENGINE ON *".to_owned()];
    let owner = grants(&[all.as_slice(), &revoked, &engines].concat());
    let database = &options.database;
    let hidden = options.hidden.iter().map(|table| format!("REVOKE SELECT ON `{database}`.`{table}`"));
    let granted = std::iter::once(format!("GRANT SELECT ON `{database}`.*"));
    let reader = grants(&granted.chain(hidden).collect::<Vec<_>>());
    let user = grants(&["GRANT owner".to_owned(), "GRANT reader".to_owned()]);
    let users = format!(
        "<!-- written at each start -->\n<clickhouse>\n  \
         <profiles><default/></profiles>\n  <quotas><default/></quotas>\n  \
         <roles>\n    <owner><grants>{owner}</grants></owner>\n    <reader><grants>{reader}</grants></reader>\n  </roles>\n  \
         <users><default>\n    <password/><networks><ip>::/0</ip></networks>\n    \
         <profile>default</profile><quota>default</quota>\n    <grants>{user}</grants>\n  \
         </default></users>\n</clickhouse>\n"
    );
    std::fs::write(data_dir.join("server.xml"), server)?;
    std::fs::write(data_dir.join("users.xml"), users)
}

/// On a full disk the engine leaves a table's definition empty, and does not start with it. Such a
/// file contains nothing, so it is moved aside. The table's data stays on the disk. The table is
/// missing until it is created again.
fn put_empty_tables_aside(data_dir: &Path) -> std::io::Result<()> {
    let engine = data_dir.join("engine");
    let folders = |folder: &Path| -> std::io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(folder) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    // The definitions of databases and of their tables: metadata/DATABASE.sql,
    // store/ABC/UUID/TABLE.sql.
    let mut files = folders(&engine.join("metadata"))?;
    for group in folders(&engine.join("store"))?.iter().filter(|path| path.is_dir()) {
        for database in folders(group)?.iter().filter(|path| path.is_dir()) {
            files.extend(folders(database)?);
        }
    }
    // The engine accepts no other file in these folders.
    let aside = data_dir.join("empty-definitions");
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "sql")) {
        if std::fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
            let name: Vec<_> =
                file.strip_prefix(&engine).unwrap_or(file).iter().map(|part| part.to_string_lossy()).collect();
            std::fs::create_dir_all(&aside)?;
            std::fs::rename(file, aside.join(name.join("-")))?;
            tracing::error!(
                file = %file.display(), aside = %aside.display(),
                "the definition of a table is empty, as after a full disk: put aside, going on without that table"
            );
        }
    }
    Ok(())
}

/// Half of this machine's memory, bytes, which is the engine's default limit.
fn half_of_machine() -> u64 {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(2 << 30, |kib: u64| kib.saturating_mul(1024) / 2)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

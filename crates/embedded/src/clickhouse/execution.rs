//! Runs one statement on a thread of its own, from the body of its request to its reply.

use super::compression::{BlockReader, OWNER_BLOCK_BYTES_MAX, READER_BLOCK_BYTES_MAX};
use super::engine::{Engine, Running};
use super::exception::{Exception, SYNTAX_ERROR};
use super::idle::Prepared;
use super::library::{Class, Connection, Counts, Output};
use super::native;
use super::quote::quote;
use super::reader;
use super::reply::{Gone, Reply};
use super::request::Request;
use super::statement::{self, Framing, Plan};
use std::io::Read;

/// The data of an `INSERT` must begin within this many bytes.
const HEAD_BYTES: u64 = 1 << 20;
/// Longest statement without an `INSERT`'s data, bytes. The engine's own `max_query_size` is lower.
const STATEMENT_BYTES: u64 = 16 << 20;
/// Size of the pieces in which an `INSERT` gets its data, bytes. The engine queues 16 of them.
const DATA_BYTES: usize = 256 << 10;
/// Largest result that cannot be streamed (JSON, Parquet, ...), bytes. It is kept in memory.
const WHOLE_RESULT_BYTES: u64 = 256 << 20;
/// The format of results if neither the statement nor the request names one.
const DEFAULT_FORMAT: &str = "TabSeparated";

/// The engine's message for a statement whose result it cannot return in chunks.
const NOT_STREAMED: &str = "Streaming query is not supported";

/// Why a statement has no reply to finish.
enum Failure {
    /// The client must be told.
    Exception(Exception),
    /// The client is gone.
    Gone,
}

impl From<Exception> for Failure {
    fn from(exception: Exception) -> Self {
        Self::Exception(exception)
    }
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Runs the statement of a request and sends its reply. This blocks the thread.
pub fn run(engine: &Engine, request: Request, body: Box<dyn Read + Send>, mut reply: Reply, running: &Running) {
    match execute(engine, request, body, &mut reply, running) {
        Ok(counts) => reply.finish(counts),
        Err(Failure::Exception(exception)) => {
            tracing::debug!(%exception, "statement failed");
            reply.fail(&exception);
        }
        Err(Failure::Gone) => tracing::debug!("client left before the end of its statement"),
    }
    running.set_key(None);
}

fn execute(
    engine: &Engine,
    mut request: Request,
    body: Box<dyn Read + Send>,
    reply: &mut Reply,
    running: &Running,
) -> Result<Counts, Failure> {
    if running.is_gone() {
        return Err(Failure::Gone);
    }
    let (mut text, plan, body) = open(&request, body)?;

    if !request.owner {
        reader::permit_settings(&request.settings)?;
        engine.reader_limits.lower(&mut request.settings);
    }
    request.order_settings();
    if let Some(kill) = statement::kill(&text, || engine.names(), request.owner) {
        text = kill;
        // A reader's KILL has been rewritten. It only finds statements of readers, so it can run
        // with the owner's rights.
        if !request.owner {
            (request.owner, request.session) = (true, None);
        }
    }
    let Some(session) = request.session.clone() else {
        let mut prepared = engine.prepare(request.owner, request.database.as_deref(), &request.settings)?;
        let _named = engine.name(&prepared.key, &request);
        let execution = Execution { request, text, body, running, key: prepared.key.clone() };
        let (counts, unchanged) = execution.run(&mut prepared, plan, reply)?;
        if unchanged {
            // The key belongs to the connection, as below.
            running.set_key(None);
            engine.idle.give_back(prepared);
        }
        return Ok(counts);
    };
    let (mut connection, key) = match engine.sessions.take(&session)? {
        Some(connection) => connection,
        None => engine.connect(request.owner).inspect_err(|_| engine.sessions.give_back(&session, None))?,
    };
    let named = engine.name(&key, &request);
    let execution = Execution { request, text, body, running, key: key.clone() };
    let result = execution.run_in_session(&mut connection, plan, reply);
    // The key belongs to the connection. Its next statement must not be killed on behalf of this
    // client.
    running.set_key(None);
    drop(named);
    engine.sessions.give_back(&session, Some((connection, key)));
    result
}

/// A statement, how to run it, and the rest of the body.
pub type Opened = (Vec<u8>, Plan, Box<dyn Read + Send>);

/// Decompresses the body and reads the statement. What follows the statement stays in the body.
///
/// # Errors
/// The body is broken, or the server does not support the statement.
pub fn open(request: &Request, body: Box<dyn Read + Send>) -> Result<Opened, Exception> {
    let body = match request.body_encoding {
        Some(encoding) => encoding.decode(body).map_err(|error| Exception::body_broken(&error))?,
        None => body,
    };
    let bytes_max = if request.owner { OWNER_BLOCK_BYTES_MAX } else { READER_BLOCK_BYTES_MAX };
    let mut body = if request.decompress { Box::new(BlockReader::new(body, bytes_max)) } else { body };
    let (text, plan) = read_statement(request, &mut body)?;
    Ok((text, plan, body))
}

/// Joins the SQL of the URL and of the body, up to the data of an `INSERT`. The rest of the data
/// stays in `body`.
fn read_statement(request: &Request, body: &mut dyn Read) -> Result<(Vec<u8>, Plan), Exception> {
    let mut text = request.query.clone().into_bytes();
    let url = request.format.as_deref().map(|format| (text.len(), format)).filter(|(length, _)| *length > 0);
    if !text.is_empty() {
        text.push(b'\n');
        if let Ok(plan @ Plan::Insert { .. }) = statement::plan(&text, url) {
            return Ok((text, plan));
        }
    }
    let mut read_to = |limit: u64, text: &mut Vec<u8>| {
        body.take(limit).read_to_end(text).map_err(|error| Exception::body_broken(&error))
    };
    let read = read_to(HEAD_BYTES, &mut text)?;
    let mut plan = statement::plan(&text, url);
    if read as u64 == HEAD_BYTES && !matches!(plan, Ok(Plan::Insert { .. })) {
        if read_to(STATEMENT_BYTES, &mut text)? as u64 == STATEMENT_BYTES {
            return Err(Exception::new(SYNTAX_ERROR, "SYNTAX_ERROR", "Max query size exceeded"));
        }
        plan = statement::plan(&text, url);
    }
    plan.map(|plan| (text, plan))
}

/// How the engine runs the statement.
enum Mode {
    /// An `INSERT` with data: the statement's head, the format of the data, and the position in the
    /// text at which the data begins.
    Insert(Vec<u8>, String, usize),
    /// The result arrives in chunks.
    Rows(String, Framing),
    /// The result arrives in one piece. The class tells whether the statement only reads.
    Whole(String, Class),
}

struct Execution<'r> {
    request: Request,
    text: Vec<u8>,
    /// The rest of the body after `text`.
    body: Box<dyn Read + Send>,
    running: &'r Running,
    key: String,
}

impl Execution<'_> {
    /// Runs a statement outside of sessions. Returns whether the connection is still in the state
    /// that its settings describe, so that another statement can use it.
    fn run(mut self, prepared: &mut Prepared, plan: Plan, reply: &mut Reply) -> Result<(Counts, bool), Failure> {
        self.permit(&mut prepared.connection, &plan)?;
        let asked = self.request.settings.clone();
        let mode = self.choose_mode(&mut prepared.connection, plan)?;
        // Other statements may change the connection. After these three settings, further settings
        // cannot be set, or settings that the request does not name have changed.
        let unchanged = matches!(mode, Mode::Insert(..) | Mode::Rows(..) | Mode::Whole(_, Class::Read))
            && !asked.iter().any(|(name, _)| matches!(name.as_str(), "readonly" | "profile" | "allow_ddl"));
        if prepared.database != self.request.database {
            let database = self.request.database.as_deref().unwrap_or_default();
            prepared.connection.run(&format!("USE {}", quote(database, '`')))?;
            prepared.database.clone_from(&self.request.database);
        }
        let new = self.request.settings.iter().filter(|setting| !prepared.settings.contains(setting));
        set(&mut prepared.connection, new)?;
        let counts = self.run_mode(&mut prepared.connection, mode, reply)?;
        if unchanged && self.request.settings.len() > asked.len() {
            prepared.connection.run("SET max_result_bytes = DEFAULT")?;
        }
        prepared.settings = asked;
        Ok((counts, unchanged))
    }

    /// Runs a statement on a session's connection. Afterwards it restores the connection, except
    /// for changes that the statement itself makes.
    fn run_in_session(mut self, connection: &mut Connection, plan: Plan, reply: &mut Reply) -> Result<Counts, Failure> {
        self.permit(connection, &plan)?;
        let lasting = matches!(plan, Plan::Other { session: true, .. });
        let mode = self.choose_mode(connection, plan)?;
        if lasting {
            // `SET` and `USE` must last. The settings of the URL would hide or undo them.
            return self.run_mode(connection, mode, reply);
        }
        let mut restore = Vec::new();
        if let Some(database) = &self.request.database {
            let current = text_of(&connection.query(b"SELECT currentDatabase()", "TSVRaw", &[])?);
            connection.run(&format!("USE {}", quote(database, '`')))?;
            restore.push(format!("USE {}", quote(current.trim_end_matches('\n'), '`')));
        }
        restore.extend(self.restore_settings(connection)?);
        let result = match set(connection, &self.request.settings) {
            Ok(()) => self.run_mode(connection, mode, reply),
            Err(exception) => Err(exception.into()),
        };
        for statement in restore {
            connection.run(&statement)?;
        }
        result
    }

    /// Checks a statement of a reader against the reader's rights.
    fn permit(&self, connection: &mut Connection, plan: &Plan) -> Result<(), Exception> {
        match plan {
            _ if self.request.owner => Ok(()),
            Plan::Insert { .. } => Err(reader::denied("INSERT")),
            Plan::Other { .. } if self.request.database.as_deref() == Some("system") => {
                Err(reader::denied("to be in the database system; name its tables in full, as system.tables"))
            }
            Plan::Other { .. } => reader::permit(connection, &self.text, &self.request.parameters),
        }
    }

    fn choose_mode(&mut self, connection: &mut Connection, plan: Plan) -> Result<Mode, Exception> {
        let (format, streamable, session) = match plan {
            Plan::Insert { .. } if self.request.read_only => return Err(read_only()),
            Plan::Insert { head, format, data } => return Ok(Mode::Insert(self.text[head].to_vec(), format, data)),
            Plan::Other { format, streamable, session } => (format, streamable, session),
        };
        let class = connection.classify(&self.text);
        if self.request.read_only && !session && matches!(class, Class::Write | Class::Control) {
            return Err(read_only());
        }
        let format = format.or_else(|| self.request.format.clone()).unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
        let is_set = |wanted: &str| self.request.settings.iter().any(|(name, _)| name == wanted);
        let streamable = streamable && !is_set("extremes") && !is_set("output_format_json_array_of_rows");
        match Framing::of(&format) {
            Some(framing) if streamable && class == Class::Read => Ok(Mode::Rows(format, framing)),
            _ => {
                if class == Class::Read && !is_set("max_result_bytes") {
                    // This must come before `readonly`.
                    let limit = ("max_result_bytes".to_owned(), WHOLE_RESULT_BYTES.to_string());
                    self.request.settings.insert(0, limit);
                }
                Ok(Mode::Whole(format, class))
            }
        }
    }

    /// A statement that sets the request's settings back to their present values.
    fn restore_settings(&self, connection: &mut Connection) -> Result<Option<String>, Exception> {
        if self.request.settings.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = self.request.settings.iter().map(|(name, _)| quote(name, '\'')).collect();
        let sql = format!("SELECT name, changed, value FROM system.settings WHERE name IN ({})", names.join(", "));
        // TSV escapes a value exactly as an SQL literal does.
        let settings = text_of(&connection.query(sql.as_bytes(), "TSV", &[])?);
        let assignments: Vec<String> = settings
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, '\t');
                match (fields.next()?, fields.next()?, fields.next()?) {
                    (name, "1", value) => Some(format!("{name} = '{value}'")),
                    (name, ..) => Some(format!("{name} = DEFAULT")),
                }
            })
            .collect();
        Ok((!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", "))))
    }

    fn run_mode(&mut self, connection: &mut Connection, mode: Mode, reply: &mut Reply) -> Result<Counts, Failure> {
        let (format, framing) = match mode {
            Mode::Insert(head, format, data) => return self.insert(connection, &head, &format, data),
            Mode::Rows(format, framing) => (format, Some(framing)),
            Mode::Whole(format, Class::Read) => (format, None),
            Mode::Whole(format, _) => {
                reply.set_format(&format);
                return self.whole(connection, &format, reply);
            }
        };
        reply.set_format(&format);
        // When a client leaves, only statements that read are killed.
        self.running.set_key(Some(&self.key));
        if self.running.is_gone() {
            return Err(Failure::Gone);
        }
        let Some(framing) = framing else { return self.whole(connection, &format, reply) };
        match self.rows(connection, &format, framing, reply) {
            Err(Failure::Exception(exception)) if exception.to_string().contains(NOT_STREAMED) => {
                self.whole(connection, &format, reply)
            }
            result => result,
        }
    }

    fn insert(
        &mut self,
        connection: &mut Connection,
        head: &[u8],
        format: &str,
        data: usize,
    ) -> Result<Counts, Failure> {
        let mut stream = connection.insert(head, format, &self.request.parameters)?;
        let mut accepted = self.text[data..].chunks(DATA_BYTES).all(|piece| stream.append(piece));
        let mut piece = Vec::with_capacity(DATA_BYTES);
        while accepted {
            piece.clear();
            // If the body ends early, the stream is dropped. The table then gets no rows.
            let read = (&mut self.body).take(DATA_BYTES as u64).read_to_end(&mut piece);
            if read.map_err(|error| Exception::body_broken(&error))? == 0 {
                break;
            }
            accepted = stream.append(&piece);
        }
        Ok(stream.finish()?)
    }

    fn rows(
        &self,
        connection: &mut Connection,
        format: &str,
        framing: Framing,
        reply: &mut Reply,
    ) -> Result<Counts, Failure> {
        let mut stream = connection.stream(&self.text, format, &self.request.parameters)?;
        let (mut counts, mut first) = (Counts::default(), true);
        while let Some(chunk) = stream.next_chunk()? {
            let rows = chunk.bytes();
            let header = if first { Some(0) } else { framing.header_length(rows) };
            let header = header.ok_or_else(|| Exception::new(49, "LOGICAL_ERROR", "a chunk of rows has no header"))?;
            first = false;
            self.write(format, &rows[header..], reply)?;
            counts.add(chunk.counts());
        }
        Ok(counts)
    }

    fn whole(&self, connection: &mut Connection, format: &str, reply: &mut Reply) -> Result<Counts, Failure> {
        let output = connection.query(&self.text, format, &self.request.parameters)?;
        self.write(format, output.bytes(), reply)?;
        Ok(output.counts())
    }

    fn write(&self, format: &str, rows: &[u8], reply: &mut Reply) -> Result<(), Failure> {
        if self.request.protocol_version == 0 || !format.eq_ignore_ascii_case("Native") {
            return Ok(reply.write(rows)?);
        }
        let mut blocks = Vec::with_capacity(rows.len());
        native::rewrite(rows, self.request.protocol_version, &mut blocks)?;
        Ok(reply.write(&blocks)?)
    }
}

/// Sets the settings of a request.
fn set<'s>(
    connection: &mut Connection,
    settings: impl IntoIterator<Item = &'s (String, String)>,
) -> Result<(), Exception> {
    let assignments: Vec<String> =
        settings.into_iter().map(|(name, value)| format!("{name} = {}", quote(value, '\''))).collect();
    assignments.chunks(32).try_for_each(|assignments| connection.run(&format!("SET {}", assignments.join(", "))))
}

/// The exception for a GET request that would change something.
fn read_only() -> Exception {
    let message = "default: Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. \
                   You should use method POST for modifying queries";
    Exception::new(164, "READONLY", message)
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(output.bytes()).into_owned()
}

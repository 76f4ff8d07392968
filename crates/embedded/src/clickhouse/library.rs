//! Wraps the C interface of `libchdb.so`. The unsafe code is in this file only.
//!
//! Each process opens the library once and never closes it, because the library's threads and
//! destructors outlive any Rust owner.

use super::exception::Exception;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Mutex;

type ConnectionHandle = *mut c_void;
type ResultHandle = *mut c_void;
type StreamHandle = *mut c_void;
type Texts = *const *const c_char;
type Lengths = *const usize;

unsafe extern "C" {
    fn _exit(status: c_int) -> !;
}

/// Ends the process without running the library's destructors. They would free memory that the
/// engine's threads still use.
pub fn exit_without_destructors(status: c_int) -> ! {
    // SAFETY: ends the process. At exit, Rust would only flush standard output, which it flushes at
    // each line end.
    unsafe { _exit(status) }
}

/// The state that `chdb_stream_append` and `chdb_classify_query_n` return on success.
const SUCCESS: c_int = 0;

/// Declares the table of functions and fills it, so that each name and signature is written once.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library functions that this file uses.
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Functions {
            fn load(library: &'static libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the signatures are those of chdb.h of the pinned version, and the library
                // is never unloaded.
                unsafe { Ok(Self { $($name: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    chdb_connect: fn(c_int, *mut *mut c_char) -> *mut ConnectionHandle;
    chdb_close_conn: fn(*mut ConnectionHandle);
    chdb_query_with_params_n: fn(ConnectionHandle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> ResultHandle;
    chdb_stream_query_with_params_n: fn(ConnectionHandle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> ResultHandle;
    chdb_stream_fetch_result: fn(ConnectionHandle, ResultHandle) -> ResultHandle;
    chdb_stream_cancel_query: fn(ConnectionHandle, ResultHandle);
    chdb_stream_insert_with_params_n: fn(ConnectionHandle, *const c_char, usize, *const c_char, usize, Texts, Lengths, Texts, Lengths, usize) -> StreamHandle;
    chdb_stream_append: fn(StreamHandle, *const c_void, usize) -> c_int;
    chdb_stream_done: fn(StreamHandle) -> ResultHandle;
    chdb_stream_cancel_insert: fn(StreamHandle);
    chdb_stream_insert_error: fn(StreamHandle) -> *const c_char;
    chdb_destroy_insert_stream: fn(StreamHandle);
    chdb_destroy_query_result: fn(ResultHandle);
    chdb_result_error: fn(ResultHandle) -> *const c_char;
    chdb_result_buffer: fn(ResultHandle) -> *mut c_char;
    chdb_result_length: fn(ResultHandle) -> usize;
    chdb_result_rows_read: fn(ResultHandle) -> u64;
    chdb_result_storage_rows_read: fn(ResultHandle) -> u64;
    chdb_result_storage_bytes_read: fn(ResultHandle) -> u64;
    chdb_result_rows_written: fn(ResultHandle) -> u64;
    chdb_result_bytes_written: fn(ResultHandle) -> u64;
    chdb_classify_query_n: fn(ConnectionHandle, *const c_char, usize, *const c_char, usize, *mut Analysis) -> c_int;
    chdb_set_signal_handlers_enabled: fn(c_int);
}

/// `struct chdb_query_analysis_v1`.
#[repr(C)]
struct Analysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// What a statement does to state that outlives it, according to the engine's own parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Read,
    /// Changes tables or their data.
    Write,
    /// `SET`, `USE`, `SYSTEM`, `KILL` and similar statements.
    Control,
    /// A text that does not parse, or more than one statement.
    Unknown,
}

/// Query parameters `{name:Type}`: names and values in ClickHouse's escaped text form.
pub type Parameters = [(String, String)];

pub struct Library {
    functions: Functions,
    path: PathBuf,
}

static OPENED: Mutex<Option<&'static Library>> = Mutex::new(None);

impl Library {
    /// Opens the library once for each process. Every later call must name the same file.
    ///
    /// # Errors
    /// A text that explains what is wrong with the file.
    pub fn open(path: &Path) -> Result<&'static Self, String> {
        let mut opened = service::lock(&OPENED);
        if let Some(library) = *opened {
            return if library.path == path {
                Ok(library)
            } else {
                Err(format!("this process has already opened {}", library.path.display()))
            };
        }
        // SAFETY: opening runs the library's static constructors, as the caller requests by naming
        // it.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
        let handle: &'static libloading::Library = Box::leak(Box::new(handle));
        let functions = Functions::load(handle).map_err(|error| error.to_string())?;
        // SAFETY: takes an int, and runs before the first connection, as the header demands. The
        // process keeps its own signal handlers.
        unsafe { (functions.chdb_set_signal_handlers_enabled)(0) };
        let library: &'static Self = Box::leak(Box::new(Self { functions, path: path.to_owned() }));
        *opened = Some(library);
        Ok(library)
    }
}

/// One connection. It runs one statement at a time and has settings and temporary tables of its
/// own.
pub struct Connection {
    library: &'static Library,
    holder: NonNull<ConnectionHandle>,
}

// SAFETY: the library locks a connection internally; it is not bound to the thread that opened it.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens a connection. The first one starts the engine with these arguments (`--name=value`).
    ///
    /// # Errors
    /// The library only reports that it failed.
    pub fn open(library: &'static Library, arguments: &[String]) -> Result<Self, Exception> {
        let failed = || Exception::new(279, "ALL_CONNECTION_TRIES_FAILED", "the engine refused a connection");
        let mut texts = vec![CString::from(c"doseline")];
        for argument in arguments {
            texts.push(CString::new(argument.as_str()).map_err(|_| failed())?);
        }
        let mut pointers: Vec<*mut c_char> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| failed())?;
        // SAFETY: `count` NUL-terminated texts that stay alive during the call. The library copies
        // what it keeps.
        let holder = unsafe { (library.functions.chdb_connect)(count, pointers.as_mut_ptr()) };
        NonNull::new(holder).map(|holder| Self { library, holder }).ok_or_else(failed)
    }

    fn handle(&self) -> ConnectionHandle {
        // SAFETY: the holder stays valid until `chdb_close_conn`, which only `drop` calls.
        unsafe { *self.holder.as_ptr() }
    }

    /// Runs a statement to its end and keeps its whole output in memory. If the text holds several
    /// statements, the library runs them all.
    ///
    /// # Errors
    /// The exception of the engine.
    pub fn query(&mut self, sql: &[u8], format: &str, parameters: &Parameters) -> Result<Output, Exception> {
        let parameters = Borrowed::new(parameters);
        // SAFETY: all pointers come with their lengths and stay valid during the call.
        let result = unsafe {
            (self.library.functions.chdb_query_with_params_n)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                parameters.names.as_ptr(),
                parameters.name_lengths.as_ptr(),
                parameters.values.as_ptr(),
                parameters.value_lengths.as_ptr(),
                parameters.names.len(),
            )
        };
        Output::take(self.library, result)
    }

    /// Runs a statement without parameters and ignores its output.
    ///
    /// # Errors
    /// The exception of the engine.
    pub fn run(&mut self, sql: &str) -> Result<(), Exception> {
        self.query(sql.as_bytes(), "Null", &[]).map(drop)
    }

    /// Starts a `SELECT` whose result arrives in chunks. Each chunk is a complete document in
    /// `format`.
    ///
    /// # Errors
    /// The engine's exception, for example `BAD_ARGUMENTS` for a statement that cannot be streamed.
    pub fn stream(&mut self, sql: &[u8], format: &str, parameters: &Parameters) -> Result<RowStream<'_>, Exception> {
        let parameters = Borrowed::new(parameters);
        // SAFETY: as in `query`.
        let result = unsafe {
            (self.library.functions.chdb_stream_query_with_params_n)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                parameters.names.as_ptr(),
                parameters.name_lengths.as_ptr(),
                parameters.values.as_ptr(),
                parameters.value_lengths.as_ptr(),
                parameters.names.len(),
            )
        };
        let stream = Output::take(self.library, result)?;
        Ok(RowStream { connection: self, stream, ended: false })
    }

    /// Starts an `INSERT` without its `FORMAT` clause. [`InsertStream::append`] then hands over its
    /// data.
    ///
    /// # Errors
    /// The exception of the engine.
    pub fn insert(&mut self, sql: &[u8], format: &str, parameters: &Parameters) -> Result<InsertStream<'_>, Exception> {
        let parameters = Borrowed::new(parameters);
        // SAFETY: as in `query`; the handle is never null.
        let handle = unsafe {
            (self.library.functions.chdb_stream_insert_with_params_n)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                parameters.names.as_ptr(),
                parameters.name_lengths.as_ptr(),
                parameters.values.as_ptr(),
                parameters.value_lengths.as_ptr(),
                parameters.names.len(),
            )
        };
        let stream = InsertStream { library: self.library, handle, done: false, connection: PhantomData };
        match stream.error() {
            Some(exception) => Err(exception),
            None => Ok(stream),
        }
    }

    /// Asks the engine's parser what kind of statement this is, without running it.
    pub fn classify(&mut self, sql: &[u8]) -> Class {
        let mut analysis = Analysis { struct_size: 16, statement_count: 0, flags: 0, query_class: 4 };
        // SAFETY: the text comes with its length, and the structure names its own size.
        let state = unsafe {
            (self.library.functions.chdb_classify_query_n)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        match (state, analysis.statement_count, analysis.query_class) {
            (SUCCESS, 1, 0) => Class::Read,
            (SUCCESS, 1, 1 | 2) => Class::Write,
            (SUCCESS, 1, 3) => Class::Control,
            _ => Class::Unknown,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: this is the only close of this holder. Streams borrow the connection, so none is
        // open.
        unsafe { (self.library.functions.chdb_close_conn)(self.holder.as_ptr()) };
    }
}

/// Parameters in the form that the library takes: arrays of pointers and lengths.
struct Borrowed<'a> {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
    lifetime: PhantomData<&'a ()>,
}

impl<'a> Borrowed<'a> {
    fn new(parameters: &'a Parameters) -> Self {
        Self {
            names: parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect(),
            name_lengths: parameters.iter().map(|(name, _)| name.len()).collect(),
            values: parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect(),
            value_lengths: parameters.iter().map(|(_, value)| value.len()).collect(),
            lifetime: PhantomData,
        }
    }
}

/// A result, or one chunk of a streamed result.
pub struct Output {
    library: &'static Library,
    handle: ResultHandle,
}

impl Output {
    fn take(library: &'static Library, handle: ResultHandle) -> Result<Self, Exception> {
        if handle.is_null() {
            return Err(Exception::from_engine("the engine returned nothing"));
        }
        let output = Self { library, handle };
        // SAFETY: the handle is live, and the text belongs to it.
        let error = unsafe { text((library.functions.chdb_result_error)(output.handle)) };
        match error {
            Some(error) => Err(Exception::from_engine(&error)),
            None => Ok(output),
        }
    }

    /// The formatted rows.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the handle is live. Its buffer does not change until it is destroyed.
        unsafe {
            let length = (self.library.functions.chdb_result_length)(self.handle);
            let start = (self.library.functions.chdb_result_buffer)(self.handle);
            if length == 0 || start.is_null() { &[] } else { std::slice::from_raw_parts(start.cast(), length) }
        }
    }

    /// The rows and bytes that the statement, or this chunk of it, read and wrote.
    pub fn counts(&self) -> Counts {
        let functions = &self.library.functions;
        // SAFETY: these are plain getters on a live handle.
        unsafe {
            Counts {
                result_rows: (functions.chdb_result_rows_read)(self.handle),
                read_rows: (functions.chdb_result_storage_rows_read)(self.handle),
                read_bytes: (functions.chdb_result_storage_bytes_read)(self.handle),
                written_rows: (functions.chdb_result_rows_written)(self.handle),
                written_bytes: (functions.chdb_result_bytes_written)(self.handle),
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: this is the only destruction of this handle.
        unsafe { (self.library.functions.chdb_destroy_query_result)(self.handle) };
    }
}

/// Rows and bytes that a statement moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub result_rows: u64,
    /// Rows read from tables.
    pub read_rows: u64,
    /// Bytes read from tables.
    pub read_bytes: u64,
    /// Rows written, including those of materialized views.
    pub written_rows: u64,
    pub written_bytes: u64,
}

impl Counts {
    /// Adds the counts of another chunk.
    pub const fn add(&mut self, other: Self) {
        self.result_rows += other.result_rows;
        self.read_rows += other.read_rows;
        self.read_bytes += other.read_bytes;
        self.written_rows += other.written_rows;
        self.written_bytes += other.written_bytes;
    }
}

/// A running `SELECT`. Dropping it before its end cancels it.
pub struct RowStream<'c> {
    connection: &'c mut Connection,
    stream: Output,
    ended: bool,
}

impl RowStream<'_> {
    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// The engine's exception. The stream has then ended.
    pub fn next_chunk(&mut self) -> Result<Option<Output>, Exception> {
        if self.ended {
            return Ok(None);
        }
        let library = self.connection.library;
        // SAFETY: both handles are live. `&mut self` keeps the calls in sequence, as the header
        // demands.
        let chunk =
            unsafe { (library.functions.chdb_stream_fetch_result)(self.connection.handle(), self.stream.handle) };
        let chunk = Output::take(library, chunk).inspect_err(|_| self.ended = true)?;
        if chunk.bytes().is_empty() {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(chunk))
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let cancel = self.connection.library.functions.chdb_stream_cancel_query;
            // SAFETY: both handles are live. The stream's own handle is destroyed after this.
            unsafe { cancel(self.connection.handle(), self.stream.handle) };
        }
    }
}

/// A running `INSERT`. Dropping it before [`InsertStream::finish`] cancels it.
pub struct InsertStream<'c> {
    library: &'static Library,
    handle: StreamHandle,
    done: bool,
    connection: PhantomData<&'c mut Connection>,
}

impl InsertStream<'_> {
    fn error(&self) -> Option<Exception> {
        // SAFETY: the handle is live, and the text belongs to it.
        let error = unsafe { text((self.library.functions.chdb_stream_insert_error)(self.handle)) };
        error.map(|error| Exception::from_engine(&error))
    }

    /// Hands over a piece of data, and waits while the engine has 16 pieces queued. `false`: the
    /// statement has failed, and [`InsertStream::finish`] returns the reason.
    pub fn append(&mut self, data: &[u8]) -> bool {
        // SAFETY: the data comes with its length, and the library copies it.
        let state =
            unsafe { (self.library.functions.chdb_stream_append)(self.handle, data.as_ptr().cast(), data.len()) };
        state == SUCCESS
    }

    /// Ends the data and commits.
    ///
    /// # Errors
    /// The exception of the engine.
    pub fn finish(mut self) -> Result<Counts, Exception> {
        self.done = true;
        // SAFETY: the handle is live and is ended once.
        let result = unsafe { (self.library.functions.chdb_stream_done)(self.handle) };
        Output::take(self.library, result).map(|output| output.counts())
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: this is the only cancel and destruction of this handle, in the order that the
        // header demands.
        unsafe {
            if !self.done {
                (self.library.functions.chdb_stream_cancel_insert)(self.handle);
            }
            (self.library.functions.chdb_destroy_insert_stream)(self.handle);
        }
    }
}

/// # Safety
/// `text` must be null, or a NUL-terminated text that stays alive during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

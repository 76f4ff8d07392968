//! The interface of Mosquitto's plugins, version 5, and what the plugin does at each event. The
//! layouts are those of `mosquitto_plugin.h` and `mosquitto_broker.h` of Mosquitto 2.0.
//!
//! The broker calls from one thread.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs,
    path::PathBuf,
};

use crate::rules::Rules;

const SUCCESS: c_int = 0;
const INVALID: c_int = 3;
const DENIED: c_int = 12;
/// Another check decides: that of the broker's `acl_file`.
const DEFER: c_int = 17;

const EVENT_RELOAD: c_int = 1;
const EVENT_ACL_CHECK: c_int = 2;
const EVENT_MESSAGE: c_int = 7;

const ACCESS_SUBSCRIBE: c_int = 4;
const LOG_NOTICE: c_int = 2;
const LOG_ERROR: c_int = 8;
const INTERFACE: c_int = 5;

/// A connected client.
#[repr(C)]
struct Client {
    _private: [u8; 0],
}

/// `struct mosquitto_opt`: a line `plugin_opt_KEY VALUE`.
#[repr(C)]
struct Setting {
    key: *const c_char,
    value: *const c_char,
}

/// `struct mosquitto_evt_acl_check`.
#[repr(C)]
struct AclCheck {
    future: *mut c_void,
    client: *const Client,
    topic: *const c_char,
    payload: *const c_void,
    properties: *mut c_void,
    access: c_int,
    payload_length: u32,
    qos: u8,
    retain: bool,
    future2: [*mut c_void; 4],
}

/// `struct mosquitto_evt_message`.
#[repr(C)]
struct Message {
    future: *mut c_void,
    client: *mut Client,
    topic: *const c_char,
    payload: *mut c_void,
    properties: *mut c_void,
    reason_string: *mut c_char,
    payload_length: u32,
    qos: u8,
    reason_code: u8,
    retain: bool,
    future2: [*mut c_void; 4],
}

type Callback = extern "C" fn(c_int, *mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn mosquitto_callback_register(
        identifier: *mut c_void,
        event: c_int,
        callback: Callback,
        event_data: *const c_void,
        user_data: *mut c_void,
    ) -> c_int;
    fn mosquitto_client_username(client: *const Client) -> *const c_char;
    fn mosquitto_kick_client_by_username(name: *const c_char, with_will: bool) -> c_int;
    fn mosquitto_log_printf(level: c_int, format: *const c_char, ...);
}

/// The plugin's files, and what was read from them.
struct State {
    /// The file of the broker's `acl_file`.
    acl: PathBuf,
    /// File with the name of a revoked certificate in each line.
    revoked: Option<PathBuf>,
    rules: Rules,
}

impl State {
    fn new(settings: &[Setting]) -> Result<Self, String> {
        let (mut acl, mut revoked) = (None, None);
        for Setting { key, value } in settings {
            // SAFETY: The broker passes texts that live for the call.
            let (key, value) = unsafe { (text(*key), text(*value)) };
            match key {
                Some("acl_file") => acl = value.map(PathBuf::from),
                Some("revoked_file") => revoked = value.map(PathBuf::from),
                other => return Err(format!("unknown option plugin_opt_{}", other.unwrap_or_default())),
            }
        }
        let acl = acl.ok_or("plugin_opt_acl_file is missing; name the file of acl_file")?;
        let mut state = Self { acl, revoked, rules: Rules::default() };
        state.read()?;
        state.revoked_names()?;
        Ok(state)
    }

    fn read(&mut self) -> Result<(), String> {
        let name = self.acl.display();
        let text = fs::read_to_string(&self.acl).map_err(|error| format!("read {name}: {error}"))?;
        self.rules = Rules::parse(&text).map_err(|fault| format!("{name}, {fault}"))?;
        Ok(())
    }

    fn revoked_names(&self) -> Result<Vec<CString>, String> {
        let Some(path) = &self.revoked else { return Ok(Vec::new()) };
        let text = fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
        Ok(text
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .filter_map(|name| CString::new(name).ok())
            .collect())
    }
}

/// A text of the broker; none if it is absent or no UTF-8.
///
/// # Safety
/// The pointer is null, or leads to a text that ends with NUL and lives as long as the result.
unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    // SAFETY: As the caller promises.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }).and_then(|text| text.to_str().ok())
}

fn log(level: c_int, line: &str) {
    let line = CString::new(format!("doseline: {line}")).unwrap_or_default();
    // SAFETY: One text for the one `%s`, both ending with NUL.
    unsafe { mosquitto_log_printf(level, c"%s".as_ptr(), line.as_ptr()) };
}

/// Whether the plugin knows an interface that the broker offers.
#[unsafe(no_mangle)]
extern "C" fn mosquitto_plugin_version(count: c_int, versions: *const c_int) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: The broker passes `count` versions.
    let known = (0..count).any(|index| unsafe { *versions.add(index) } == INTERFACE);
    if known { INTERFACE } else { -1 }
}

/// Reads the files and asks for the events. The broker does not start if this fails.
#[unsafe(no_mangle)]
extern "C" fn mosquitto_plugin_init(
    identifier: *mut c_void,
    user_data: *mut *mut c_void,
    settings: *const Setting,
    count: c_int,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: The broker passes `count` settings; without any the pointer may be null.
    let settings = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(settings, count) } };
    let state = match State::new(settings) {
        Ok(state) => Box::into_raw(Box::new(state)).cast(),
        Err(fault) => {
            log(LOG_ERROR, &fault);
            return INVALID;
        }
    };
    // SAFETY: The broker passes the place that it hands on to `mosquitto_plugin_cleanup`.
    unsafe { *user_data = state };
    let events: [(c_int, Callback); 3] =
        [(EVENT_RELOAD, on_reload), (EVENT_ACL_CHECK, on_acl_check), (EVENT_MESSAGE, on_message)];
    for (event, callback) in events {
        // SAFETY: The state lives until `mosquitto_plugin_cleanup`.
        let registered = unsafe { mosquitto_callback_register(identifier, event, callback, std::ptr::null(), state) };
        if registered != SUCCESS {
            log(LOG_ERROR, "the broker does not offer an event that the plugin needs; it must be Mosquitto 2");
            return registered;
        }
    }
    SUCCESS
}

/// Frees the state.
#[unsafe(no_mangle)]
extern "C" fn mosquitto_plugin_cleanup(user_data: *mut c_void, _settings: *const Setting, _count: c_int) -> c_int {
    if !user_data.is_null() {
        // SAFETY: It comes from `mosquitto_plugin_init`, and no event follows.
        drop(unsafe { Box::from_raw(user_data.cast::<State>()) });
    }
    SUCCESS
}

extern "C" fn on_acl_check(_event: c_int, check: *mut c_void, state: *mut c_void) -> c_int {
    // SAFETY: The broker passes the structure of this event and the state of the registration.
    let (check, state) = unsafe { (&*check.cast::<AclCheck>(), &*state.cast::<State>()) };
    if check.access != ACCESS_SUBSCRIBE {
        return DEFER;
    }
    // SAFETY: The texts live for the call.
    let (user, filter) = unsafe { (text(mosquitto_client_username(check.client)), text(check.topic)) };
    let granted = user.zip(filter).is_some_and(|(user, filter)| state.rules.grants(user, filter));
    if granted { DEFER } else { DENIED }
}

extern "C" fn on_message(_event: c_int, message: *mut c_void, _state: *mut c_void) -> c_int {
    // SAFETY: The broker passes the structure of this event.
    let message = unsafe { &mut *message.cast::<Message>() };
    // SAFETY: The topic lives for the call.
    let topic = unsafe { text(message.topic) }.unwrap_or_default();
    if topic.ends_with("/report") || topic.ends_with("/report/json") {
        message.retain = false;
    }
    SUCCESS
}

extern "C" fn on_reload(_event: c_int, _reload: *mut c_void, state: *mut c_void) -> c_int {
    // SAFETY: The broker passes the state of the registration, and calls from one thread.
    let state = unsafe { &mut *state.cast::<State>() };
    if let Err(fault) = state.read() {
        log(LOG_ERROR, &format!("the rules for subscriptions stay as they were: {fault}"));
    }
    let names = state.revoked_names().unwrap_or_else(|fault| {
        log(LOG_ERROR, &format!("connections of revoked names stay open: {fault}"));
        Vec::new()
    });
    for name in names {
        // SAFETY: The text lives for the call. A name without a connection is no fault.
        if unsafe { mosquitto_kick_client_by_username(name.as_ptr(), false) } == SUCCESS {
            log(LOG_NOTICE, &format!("looked for connections of the revoked name {}", name.to_string_lossy()));
        }
    }
    SUCCESS
}

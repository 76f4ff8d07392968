//! The `doseline up` that runs in a data directory. It holds the directory's lock. While it serves,
//! a file in the directory names its engines and options, so that other sub-commands find it
//! without any configuration.
//!
//! The file alone proves nothing, because a killed process leaves it behind. It counts only while
//! the process that wrote it holds the lock.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, ENV_PREFIX},
    hint::{Hint as _, fault},
};

/// The default data directory of `up`, where other sub-commands also look for it.
const DATA_DIR: &str = "./doseline-data";
const LOCK: &str = "doseline.lock";
const FILE: &str = "running.json";
/// Permissions of a data directory.
const PRIVATE: u32 = 0o700;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often the lock is tried, and the pause between two tries. A command that looks for a running
/// `up` holds the lock for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Sections of the configuration that contain addresses of engines.
const ENGINES: [&str; 3] = ["MQTT", "KAFKA", "CLICKHOUSE"];
const OTHER_DIRECTORY: &str = "choose another directory with --data-dir";

/// Flags of the sub-commands that can find a running `up`.
#[derive(Args)]
pub struct Beside {
    /// Data directory of the running `doseline up` to use: its engines win over --config and the
    /// environment. Without this flag and without a configuration it is ./doseline-data
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// A running `up`.
#[derive(Debug)]
pub struct Running {
    /// Its configuration, with the real addresses of its engines.
    pub config: Config,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Contents {
    process: u32,
    version: String,
    dashboard: String,
    config: serde_json::Value,
}

/// The file of this process. It is removed when this is dropped.
#[derive(Debug)]
pub struct RunningFile(PathBuf);

impl Drop for RunningFile {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "could not be removed");
        }
    }
}

/// Locks a data directory for this process, until the process ends. Removes the file that an
/// earlier process left there.
///
/// # Errors
/// The directory is a file, cannot be created or written, or another process uses it.
pub fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let shown = data_dir.display();
    if data_dir.exists() && !data_dir.is_dir() {
        return Err(fault(format!("--data-dir {shown} is a file; it must be a directory"), OTHER_DIRECTORY));
    }
    let cannot = "use a directory that you may write to: name it with --data-dir, or set its owner";
    make(data_dir).with_context(|| format!("create --data-dir {shown}")).hint(cannot)?;
    // The directory's owner may replace everything in it.
    let owner = data_dir.metadata().with_context(|| format!("look at {shown}"))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner != user {
        let remedy = format!("use a directory of your own: name it with --data-dir, or `chown -R {user} {shown}`");
        return Err(fault(format!("{shown} belongs to the user with id {owner}, this process runs as {user}"), remedy));
    }
    let path = data_dir.join(LOCK);
    // Do not follow a link: another user could make this process write into any file.
    let own = i32::try_from(OFlags::NOFOLLOW.bits())?;
    let open = || File::options().read(true).write(true).create(true).truncate(false).custom_flags(own).open(&path);
    let mut file = open().with_context(|| format!("open {}", path.display())).hint(cannot)?;
    let mut tries = 1;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            TryLockError::WouldBlock => {
                let process = process(&mut file)?;
                let remedy = format!("stop that one, or {OTHER_DIRECTORY}");
                return Err(fault(format!("{shown} is in use by process {process}"), remedy));
            }
            TryLockError::Error(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id()).with_context(|| format!("write {}", path.display()))?;
    // This also checks that the directory can be written. The lock file may be older.
    let probe = data_dir.join(FILE).with_extension("new");
    for path in [&probe, &data_dir.join(FILE)] {
        remove(path).with_context(|| format!("remove {}", path.display())).hint(cannot)?;
    }
    File::create_new(&probe).with_context(|| format!("write to {shown}")).hint(cannot)?;
    remove(&probe).with_context(|| format!("remove {}", probe.display())).hint(cannot)?;
    Ok(file)
}

/// Creates a data directory that only this user may enter. An existing data directory of `up` also
/// gets these permissions. Any other existing directory keeps its permissions; the files that `up`
/// creates in it are private in any case.
fn make(data_dir: &Path) -> std::io::Result<()> {
    let is_ours = !data_dir.exists() || data_dir.join(LOCK).exists();
    fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(data_dir)?;
    if is_ours { fs::set_permissions(data_dir, Permissions::from_mode(PRIVATE)) } else { Ok(()) }
}

/// Writes the addresses of this process's engines and its options. The caller holds the lock.
///
/// # Errors
/// The file cannot be written.
pub fn write(data_dir: &Path, config: &Config, dashboard: &str) -> anyhow::Result<RunningFile> {
    let mut config = config.clone();
    // Of the engines of `up`, only ClickHouse has a password, which was generated for this run.
    // Passwords of other engines must not be copied into the file.
    config.mqtt.password = None;
    if let Some(sasl) = &mut config.kafka.sasl {
        sasl.password = None;
    }
    let contents = Contents {
        process: std::process::id(),
        version: VERSION.to_owned(),
        dashboard: dashboard.to_owned(),
        config: serde_json::to_value(config)?,
    };
    let path = data_dir.join(FILE);
    let whole = || -> anyhow::Result<()> {
        let new = path.with_extension("new");
        remove(&new)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&contents)?)?;
        drop(file);
        Ok(fs::rename(&new, &path)?)
    };
    whole().with_context(|| format!("write {}", path.display()))?;
    Ok(RunningFile(path))
}

/// The running `up` that a sub-command should use. `None` if a configuration file or the
/// environment names engines, unless a data directory is named too.
///
/// # Errors
/// No `up` runs, although one is needed. As [`find`] otherwise.
pub fn wanted(data_dir: Option<&Path>, is_configured: bool) -> anyhow::Result<Option<Running>> {
    match data_dir {
        Some(data_dir) => find(data_dir).map(Some),
        None if is_configured || names_engines(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) => {
            Ok(None)
        }
        None => find_or_say(Path::new(DATA_DIR), ", and no configuration is named").map(Some),
    }
}

/// Whether variables of the environment name engines.
fn names_engines(mut variables: impl Iterator<Item = String>) -> bool {
    let prefixes = ENGINES.map(|section| format!("{ENV_PREFIX}{section}__"));
    variables.any(|name| prefixes.iter().any(|prefix| name.to_uppercase().starts_with(prefix)))
}

/// The `up` that runs in a data directory.
///
/// # Errors
/// No `up` runs there, it does not serve yet, or its file cannot be read.
pub fn find(data_dir: &Path) -> anyhow::Result<Running> {
    find_or_say(data_dir, "")
}

/// As [`find`]. The message that no `up` runs there ends with `also`.
fn find_or_say(data_dir: &Path, also: &str) -> anyhow::Result<Running> {
    let shown = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let shown = shown.display();
    let none = |why: &str| {
        fault(
            format!("no running doseline in {shown}{why}{also}"),
            "start `doseline up`, name the data directory of one that runs with --data-dir DIR, or name a configuration with \
             --config FILE",
        )
    };
    let path = data_dir.join(LOCK);
    let mut lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(none("")),
        Err(error) => {
            return Err(error).with_context(|| format!("open {}", path.display())).hint(AS_ITS_USER);
        }
    };
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => {
            let process = process(&mut lock)?;
            return Err(none(&format!(" (process {process}, which ran there, has ended)")));
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    let process = process(&mut lock)?;
    let path = data_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("read {}", path.display())).hint(AS_ITS_USER);
        }
    };
    let contents = text.map(|text| serde_json::from_str::<Contents>(&text)).transpose();
    let contents = contents.with_context(|| format!("read {}", path.display())).hint(START_AGAIN)?;
    let Some(contents) = contents.filter(|contents| contents.process.to_string() == process) else {
        let text = format!("the doseline in {shown} (process {process}) does not serve yet, or is about to end");
        return Err(fault(text, "wait for its ready line, then run this again"));
    };
    let Contents { version, config, .. } = contents;
    let config = serde_json::from_value(config)
        .with_context(|| format!("read {}, written by doseline {version}, with doseline {VERSION}", path.display()))
        .hint(START_AGAIN)?;
    Ok(Running { config })
}

const AS_ITS_USER: &str = "run this as the user who runs `doseline up`, or name a configuration with --config FILE";
const START_AGAIN: &str = "use the same version of doseline, or stop that `doseline up` and start it again";

/// Refuses the data directory of an `up` as the folder of the simulator's outboxes.
///
/// # Errors
/// The folder is such a directory.
pub fn refuse_as_outboxes(folder: &Path) -> anyhow::Result<()> {
    if !folder.join(LOCK).exists() {
        return Ok(());
    }
    let text = format!(
        "--data-dir {} is the data directory of a `doseline up`; devices cannot keep their outboxes there",
        folder.display()
    );
    Err(fault(text, "name it with --up-data-dir to send to that `up`"))
}

/// The process that a lock file names.
fn process(lock: &mut File) -> anyhow::Result<String> {
    let mut process = String::new();
    lock.read_to_string(&mut process).context("read the lock of the data directory")?;
    Ok(process.trim().to_owned())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use service::secret::Secret;

    use super::*;
    use crate::hint::Explanation;

    fn config() -> Config {
        let mut config = Config::default();
        config.kafka.partitions = 2;
        config.mqtt.port = 4_711;
        config.mqtt.password = Some(Secret::new("hunter2"));
        config.clickhouse.password = Some(Secret::new("made for this run"));
        config
    }

    fn refused(data_dir: &Path) -> Explanation {
        Explanation::of(&find(data_dir).unwrap_err())
    }

    #[test]
    fn links_in_a_data_directory_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (data_dir, others) = (folder.path().join("data"), folder.path().join("precious"));
        fs::create_dir(&data_dir).unwrap();
        fs::write(&others, "precious").unwrap();
        for name in [LOCK, FILE, "running.new"] {
            std::os::unix::fs::symlink(&others, data_dir.join(name)).unwrap();
            let locked = lock(&data_dir);
            assert_eq!(locked.is_err(), name == LOCK, "{name}");
            assert_eq!(fs::read_to_string(&others).unwrap(), "precious", "{name}");
            let _ = fs::remove_file(data_dir.join(name));
        }
    }

    #[test]
    fn a_running_up_is_found_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let told = refused(&data_dir);
        assert_eq!(told.error, format!("no running doseline in {}", data_dir.display()));
        let hint = told.hint.unwrap();
        assert!(hint.contains("`doseline up`") && hint.contains("--config FILE"), "{hint}");

        let lock = lock(&data_dir).unwrap();
        assert!(refused(&data_dir).error.contains("does not serve yet"));
        let written = write(&data_dir, &config(), "http://127.0.0.1:9600").unwrap();
        let found = find(&data_dir).unwrap().config;
        assert_eq!((found.kafka.partitions, found.mqtt.port), (2, 4_711));
        let path = data_dir.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(found.mqtt.password.is_none() && !fs::read_to_string(&path).unwrap().contains("hunter2"));
        assert_eq!(found.clickhouse.password.unwrap().reveal(), "made for this run");
        drop(written);
        assert!(!path.exists());
        assert!(refused(&data_dir).error.contains("about to end"));
        drop(lock);
        assert!(refused(&data_dir).error.starts_with("no running doseline in "));
    }

    #[test]
    fn a_data_directory_is_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let new = folder.path().join("above/new");
        drop(lock(&new).unwrap());
        assert_eq!((mode(&new), mode(new.parent().unwrap())), (0o700, 0o700));
        // Some data directories have these permissions.
        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        drop(lock(&new).unwrap());
        assert_eq!(mode(&new), 0o700);
        let others = folder.path().join("others");
        fs::create_dir(&others).unwrap();
        fs::set_permissions(&others, Permissions::from_mode(0o755)).unwrap();
        drop(lock(&others).unwrap());
        assert_eq!(mode(&others), 0o755);
    }

    #[test]
    fn what_a_killed_up_left_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path();
        let first = lock(data_dir).unwrap();
        std::mem::forget(write(data_dir, &config(), "").unwrap());
        drop(first);
        let told = refused(data_dir);
        let process = std::process::id();
        assert!(told.error.contains(&format!("(process {process}, which ran there, has ended)")), "{told:?}");
        // A later process that starts there must not be taken for this one.
        let second = lock(data_dir).unwrap();
        assert!(!data_dir.join(FILE).exists());
        fs::write(data_dir.join(FILE), r#"{"process":1,"version":"0","dashboard":"","config":{}}"#).unwrap();
        assert!(refused(data_dir).error.contains("does not serve yet"));
        drop(second);
    }

    #[test]
    fn the_word_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _lock = lock(folder.path()).unwrap();
        let process = std::process::id();
        let check = |text: String, said: &str| {
            fs::write(folder.path().join(FILE), text).unwrap();
            let told = refused(folder.path());
            assert!(told.error.contains(said) && told.hint.as_deref() == Some(START_AGAIN), "{told:?}");
        };
        check("{".to_owned(), "running.json");
        check(
            format!(r#"{{"process":{process},"version":"9.9","dashboard":"","config":{{"novel":1}}}}"#),
            "written by doseline 9.9",
        );
    }

    #[test]
    fn a_data_directory_that_cannot_be_used_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let told = Explanation::of(&lock(&file).unwrap_err());
        assert!(told.error.contains("is a file") && told.hint.unwrap().contains("--data-dir"), "{}", told.error);
        let told = Explanation::of(&lock(&file.join("below")).unwrap_err());
        assert!(told.error.contains("create --data-dir") && told.hint.unwrap().contains("--data-dir"));
        let held = lock(folder.path()).unwrap();
        let told = Explanation::of(&lock(folder.path()).unwrap_err());
        let said = format!("{} is in use by process {}", folder.path().display(), std::process::id());
        assert_eq!(told.error, said);
        drop(held);
        assert!(refuse_as_outboxes(folder.path()).is_err() && refuse_as_outboxes(&file).is_ok());
    }

    /// Only root can give a directory to another user. Without root this test checks nothing.
    #[test]
    fn a_data_directory_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(folder.path(), Some(65_534), None).is_err() {
            return;
        }
        let refused = lock(folder.path()).unwrap_err();
        let Explanation { error, hint } = Explanation::of(&refused);
        assert!(error.contains("belongs to the user with id 65534"), "{error}");
        assert!(hint.is_some_and(|hint| hint.contains("chown -R")));
    }

    #[test]
    fn a_look_at_the_lock_does_not_keep_an_up_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        drop(lock(folder.path()).unwrap());
        let look = File::open(folder.path().join(LOCK)).unwrap();
        look.try_lock_shared().unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(LOCK_PAUSE);
            drop(look);
        });
        lock(folder.path()).unwrap();
        looking.join().unwrap();
    }

    #[test]
    fn a_configuration_that_names_engines_is_enough() {
        let names = |name: &str| names_engines(std::iter::once(name.to_owned()));
        for name in ["DOSELINE__KAFKA__BROKERS", "DOSELINE__CLICKHOUSE__URL", "doseline__mqtt__port"] {
            assert!(names(name), "{name}");
        }
        for name in ["DOSELINE__LOG__FORMAT", "DOSELINE_LIBCHDB", "KAFKA__BROKERS"] {
            assert!(!names(name), "{name}");
        }
        assert!(wanted(None, true).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        assert!(wanted(Some(folder.path()), true).is_err(), "a directory that is named must have one");
    }
}

//! An append-only journal in segment files, shared by all devices of a process. One write and one
//! fsync keep the events of a thousand devices as well as those of one.
//!
//! Records are appended to the last segment and committed together. The oldest segment is deleted
//! when it holds no live record. Live records can be appended again to free it. A torn tail is cut
//! off at open.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    record::{self, FRAME_BYTES, Record},
};

/// When appended records are forced to the disk. A killed process loses nothing under any policy; a
/// power failure may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything committed is published. A power failure loses nothing that was ever sent.
    Always,
    /// At most this long after the commit.
    Every(Duration),
    /// Whenever the operating system decides.
    Never,
}

/// Position of a record's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the body in it.
    pub offset: u32,
    /// Length of the body, bytes.
    pub length: u32,
}

struct Segment {
    number: u32,
    file: File,
    bytes: u64,
    /// Number of its records that are still needed: events without a receipt.
    live: u64,
}

/// The journal of one process, with its segments.
pub struct Journal {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    pending: Vec<u8>,
    fsync: Fsync,
    segment_bytes: u64,
    synced: bool,
    synced_at: Instant,
    /// Lock that keeps other processes out of the directory.
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal in `dir`, and passes every record to `visit`, oldest first.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it, [`Error::File`].
    pub(crate) fn open(
        dir: &Path,
        fsync: Fsync,
        segment_bytes: u64,
        mut visit: impl FnMut(Place, Record<'_>),
    ) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let lock = lock(dir)?;
        let mut segments = VecDeque::new();
        let numbers = numbers(dir)?;
        for number in &numbers {
            segments.push_back(replay(dir, *number, numbers.last() == Some(number), &mut visit)?);
        }
        let (pending, synced_at) = (Vec::new(), Instant::now());
        let mut journal =
            Self { dir: dir.to_owned(), segments, pending, fsync, segment_bytes, synced: true, synced_at, _lock: lock };
        if journal.segments.is_empty() {
            journal.roll()?;
        }
        Ok(journal)
    }

    /// Appends a record. It is on disk after the next [`Journal::commit`].
    pub(crate) fn append(&mut self, record: &Record<'_>) -> Place {
        let tail = self.segments.back();
        let (segment, start) = tail.map_or((0, 0), |tail| (tail.number, tail.bytes));
        let offset = start + (self.pending.len() + FRAME_BYTES) as u64;
        let length = record::encode(record, &mut self.pending);
        Place { segment, offset: offset as u32, length: length as u32 }
    }

    /// Writes the appended records, and syncs them as the policy says.
    ///
    /// # Errors
    /// [`Error::File`]. The appended records are then in doubt, and the process must not continue.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        if let Some(tail) = self.segments.back_mut()
            && !self.pending.is_empty()
        {
            tail.file.write_all(&self.pending).map_err(Error::file("append to", path(&self.dir, tail.number)))?;
            tail.bytes += self.pending.len() as u64;
            self.pending.clear();
            self.synced = false;
        }
        match self.fsync {
            Fsync::Always => self.sync(),
            Fsync::Every(period) if self.synced_at.elapsed() >= period => self.sync(),
            Fsync::Every(_) | Fsync::Never => Ok(()),
        }
    }

    /// Forces all committed records to the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if !self.synced
            && let Some(tail) = self.segments.back()
        {
            tail.file.sync_data().map_err(Error::file("sync", path(&self.dir, tail.number)))?;
            self.synced = true;
        }
        self.synced_at = Instant::now();
        Ok(())
    }

    /// The body of a committed record.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn read(&self, place: Place, body: &mut Vec<u8>) -> Result<(), Error> {
        let failed = |source| Error::File { action: "read", path: path(&self.dir, place.segment), source };
        let segment = self.segment(place.segment).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        body.resize(place.length as usize, 0);
        segment.file.read_exact_at(body, u64::from(place.offset)).map_err(failed)
    }

    /// Counts the event at `place` as needed.
    pub(crate) fn retain(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.live += 1;
        }
    }

    /// Counts the event at `place` as no longer needed.
    pub(crate) fn release(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// Whether the last segment is full, so that [`Journal::roll`] is due.
    pub(crate) fn is_full(&self) -> bool {
        self.segments.back().is_some_and(|tail| tail.bytes + self.pending.len() as u64 >= self.segment_bytes)
    }

    /// Starts a new segment. The caller appends snapshots next, so that older segments can be
    /// deleted.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn roll(&mut self) -> Result<(), Error> {
        self.commit()?;
        self.sync()?;
        let number = self.segments.back().map_or(1, |tail| tail.number + 1);
        let path = path(&self.dir, number);
        let file = open(&path).map_err(Error::file("create", &path))?;
        if self.fsync != Fsync::Never {
            sync_dir(&self.dir)?;
        }
        self.segments.push_back(Segment { number, file, bytes: 0, live: 0 });
        Ok(())
    }

    /// The oldest segment, if more than `segments` are kept and freeing it by appending its live
    /// records again is worthwhile.
    pub(crate) fn oldest_beyond(&self, segments: usize) -> Option<u32> {
        (self.segments.len() > segments.max(1)).then(|| self.segments.front().map(|oldest| oldest.number)).flatten()
    }

    /// Number of segments kept.
    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of a full segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Deletes the oldest segments that hold nothing live.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn reclaim(&mut self) -> Result<(), Error> {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|oldest| oldest.live == 0) {
            // The facts in the deleted segment must first be on disk in a younger one.
            self.commit()?;
            if self.fsync != Fsync::Never {
                self.sync()?;
            }
            if let Some(oldest) = self.segments.pop_front() {
                let path = path(&self.dir, oldest.number);
                fs::remove_file(&path).map_err(Error::file("delete", &path))?;
            }
        }
        Ok(())
    }

    fn segment(&self, number: u32) -> Option<&Segment> {
        let first = self.segments.front()?.number;
        // Numbers are consecutive, unless a person deleted files.
        let guess = self.segments.get(number.checked_sub(first)? as usize);
        guess.filter(|segment| segment.number == number).or_else(|| self.segments.iter().find(|s| s.number == number))
    }

    fn segment_mut(&mut self, number: u32) -> Option<&mut Segment> {
        self.segments.iter_mut().rev().find(|segment| segment.number == number)
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(Error::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(Error::File { action: "lock", path, source }),
    }
}

fn numbers(dir: &Path) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let name = entry.map_err(Error::file("list", dir))?.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_prefix("outbox-")?.strip_suffix(".log")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn replay(dir: &Path, number: u32, is_last: bool, visit: &mut impl FnMut(Place, Record<'_>)) -> Result<Segment, Error> {
    let path = path(dir, number);
    let mut file = open(&path).map_err(Error::file("open", &path))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::file("read", &path))?;
    let mut offset = 0;
    while let Some(body) = record::frame(&bytes[offset..]) {
        let start = offset + FRAME_BYTES;
        match record::decode(body) {
            Some(record) => visit(Place { segment: number, offset: start as u32, length: body.len() as u32 }, record),
            None => tracing::warn!(path = %path.display(), offset, "record of an unknown kind skipped"),
        }
        offset = start + body.len();
    }
    if offset < bytes.len() {
        let torn = bytes.len() - offset;
        if is_last {
            tracing::info!(path = %path.display(), bytes = torn, "torn tail cut off");
        } else {
            // This is damage, not the end of the journal. The rest cannot be framed, so it is kept
            // for a person.
            tracing::error!(path = %path.display(), bytes = torn, "damaged segment; the rest is set aside");
        }
        let aside = path.with_extension(if is_last { "torn" } else { "damaged" });
        fs::write(&aside, &bytes[offset..]).map_err(Error::file("write", &aside))?;
        file.set_len(offset as u64).map_err(Error::file("truncate", &path))?;
        file.sync_data().map_err(Error::file("sync", &path))?;
    }
    Ok(Segment { number, file, bytes: offset as u64, live: 0 })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("outbox-{number:010}.log"))
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boots(dir: &Path) -> Vec<u64> {
        let mut boots = Vec::new();
        let visit = |_, record: Record<'_>| {
            if let Record::Boot { boot_id, .. } = record {
                boots.push(boot_id);
            }
        };
        drop(Journal::open(dir, Fsync::Never, 1 << 20, visit).unwrap());
        boots
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), Fsync::Always, 1 << 20, |_, _| {}).unwrap();
        for boot_id in 1..=3 {
            journal.append(&Record::Boot { device: 0, boot_id });
        }
        journal.commit().unwrap();
        drop(journal);
        let path = path(dir.path(), 1);
        let whole = fs::read(&path).unwrap();
        let record = whole.len() / 3;
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(boots(dir.path()), (1..=(cut / record) as u64).collect::<Vec<_>>(), "cut at {cut}");
            assert_eq!(fs::metadata(&path).unwrap().len() as usize, cut / record * record);
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _journal = Journal::open(dir.path(), Fsync::Never, 1 << 20, |_, _| {}).unwrap();
        assert!(matches!(Journal::open(dir.path(), Fsync::Never, 1 << 20, |_, _| {}), Err(Error::Locked { .. })));
    }

    #[test]
    fn segments_go_when_nothing_in_them_is_live() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), Fsync::Never, 64, |_, _| {}).unwrap();
        let mut places = Vec::new();
        for boot_id in 1..=20 {
            let place = journal.append(&Record::Boot { device: 0, boot_id });
            journal.retain(place);
            places.push(place);
            journal.commit().unwrap();
            if journal.is_full() {
                journal.roll().unwrap();
            }
        }
        let segments = journal.segments();
        assert!(segments > 5, "{segments}");
        let mut body = Vec::new();
        journal.read(places[9], &mut body).unwrap();
        assert_eq!(record::decode(&body), Some(Record::Boot { device: 0, boot_id: 10 }));
        journal.reclaim().unwrap();
        assert_eq!(journal.segments(), segments);
        for place in &places[..15] {
            journal.release(*place);
        }
        journal.reclaim().unwrap();
        assert!(journal.segments() <= segments / 2);
        assert_eq!(numbers(dir.path()).unwrap().len(), journal.segments());
    }
}

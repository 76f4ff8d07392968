//! One file of a partition. It holds batches one after the other, and its name is the offset of its
//! first record.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    batch::{HEADER_BYTES, Header},
    damaged, patiently, write_durably,
};

const EXTENSION: &str = "log";
/// Longest range of offsets that one damaged place may hide, in the search for what follows it.
const HIDDEN_OFFSETS_MAX: i64 = 1 << 31;
/// One index entry covers this many bytes of a segment.
const INDEX_STEP_BYTES: u64 = 32 << 10;

/// Path of the segment that begins at `base_offset`.
pub(super) fn path(directory: &Path, base_offset: i64) -> PathBuf {
    directory.join(format!("{base_offset:020}.{EXTENSION}"))
}

/// Position of the batch that begins at `offset` in the file.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    position: u64,
}

/// A segment, as its readers see it: only the bytes below `readable`, which are on disk.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base_offset: i64,
    path: PathBuf,
    file: File,
    readable: AtomicU64,
    /// Readers extend the index as they pass. An old segment costs nothing until a client reads it.
    index: Mutex<Vec<Entry>>,
}

impl Segment {
    /// Creates an empty segment. The caller syncs the folder.
    pub(super) fn create(directory: &Path, base_offset: i64) -> io::Result<Self> {
        let path = path(directory, base_offset);
        let file = patiently(|| OpenOptions::new().read(true).write(true).create_new(true).open(&path))?;
        Ok(Self { base_offset, path, file, readable: AtomicU64::new(0), index: Mutex::default() })
    }

    /// Opens an existing segment; `None` for a file that is not a segment.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let is_log = path.extension().is_some_and(|extension| extension == EXTENSION);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok());
        let (true, Some(base_offset)) = (is_log, stem) else { return Ok(None) };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let readable = AtomicU64::new(file.metadata()?.len());
        Ok(Some(Self { base_offset, path: path.to_owned(), file, readable, index: Mutex::default() }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes may be read.
    pub(super) fn bytes(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    pub(super) fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Lets readers see the bytes before `bytes`, which must be synced.
    pub(super) fn publish(&self, bytes: u64) {
        self.readable.store(bytes, Ordering::Release);
    }

    /// Cuts the file off at this length and syncs it.
    pub(super) fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        self.publish(bytes);
        Ok(())
    }

    /// Whether offsets may be missing in it. That is so if it was built from a damaged file, which
    /// still exists.
    pub(super) fn has_holes(&self) -> bool {
        damaged(&self.path).exists()
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        // The damaged file must go first. Otherwise the next start would build the segment from it.
        match std::fs::remove_file(damaged(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::remove_file(&self.path),
        }
    }

    /// Builds a segment from what can be read of a file that a person has put aside as damaged.
    /// Does nothing if the segment exists, or for other files.
    pub(super) fn salvage(aside: &Path) -> io::Result<()> {
        let segment = aside.with_extension("");
        if aside.extension().is_none_or(|extension| extension != "damaged") || segment.exists() {
            return Ok(());
        }
        let base_offset = segment.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok());
        let Some(mut expected) = base_offset else { return Ok(()) };
        let content = std::fs::read(aside)?;
        let (mut rest, mut whole) = (content.as_slice(), Vec::new());
        while let Some((skipped, header)) = find_batch(rest, expected) {
            whole.extend_from_slice(&rest[skipped..skipped + header.bytes]);
            rest = &rest[skipped + header.bytes..];
            expected = header.next_offset();
        }
        let lost = content.len() - whole.len();
        tracing::warn!(segment = %segment.display(), lost_bytes = lost, "made a segment anew of what can be read");
        write_durably(&segment, &whole)
    }

    /// Whether an intact batch exists anywhere after the first `intact` bytes.
    pub(super) fn goes_on_after(&self, intact: u64, expected: i64) -> io::Result<bool> {
        let content = std::fs::read(&self.path)?;
        let rest = usize::try_from(intact).ok().and_then(|intact| content.get(intact..));
        Ok(rest.is_some_and(|rest| find_batch(rest, expected).is_some()))
    }

    /// Time since the last write, from the file's modification time.
    pub(super) fn age(&self) -> io::Result<std::time::Duration> {
        Ok(self.file.metadata()?.modified()?.elapsed().unwrap_or_default())
    }

    /// Calls `each` with every intact batch in order, and returns their total size. This is the
    /// whole file, or the part before the first byte that does not continue the log.
    pub(super) fn scan(&self, mut each: impl FnMut(&Header)) -> io::Result<u64> {
        let content = std::fs::read(&self.path)?;
        let mut rest = content.as_slice();
        let mut expected = self.base_offset;
        let has_holes = self.has_holes();
        while let Some(header) = Header::read(rest) {
            let continues = header.base_offset == expected || has_holes && header.base_offset > expected;
            if !continues || !header.is_intact(rest) {
                break;
            }
            each(&header);
            expected = header.next_offset();
            rest = rest.get(header.bytes..).unwrap_or_default();
        }
        Ok(u64::try_from(content.len() - rest.len()).unwrap_or(u64::MAX))
    }

    /// Reads whole batches, starting with the one that holds `offset`: as many as fit into
    /// `bytes_max`, but at least one.
    pub(super) fn read(&self, offset: i64, bytes_max: usize) -> io::Result<Bytes> {
        let end = self.bytes();
        let Some((position, first)) = self.find(|header| header.next_offset() > offset, offset, end)? else {
            return Ok(Bytes::new());
        };
        let available = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; bytes_max.max(first.bytes).min(available)];
        self.file.read_exact_at(&mut buffer, position)?;
        let mut whole = 0usize;
        while let Some(header) = buffer.get(whole..).and_then(Header::read) {
            match whole.checked_add(header.bytes) {
                Some(next) if next <= buffer.len() => whole = next,
                _ => break,
            }
        }
        buffer.truncate(whole);
        Ok(Bytes::from(buffer))
    }

    /// The first batch with a record created at `timestamp_ms` or later.
    pub(super) fn find_timestamp(&self, timestamp_ms: i64) -> io::Result<Option<Header>> {
        let found = self.find(|header| header.max_timestamp_ms >= timestamp_ms, self.base_offset, self.bytes())?;
        Ok(found.map(|(_, header)| header))
    }

    /// Walks over the headers from the last indexed batch at or before `from`. Returns the first
    /// that `wanted` accepts.
    fn find(&self, wanted: impl Fn(&Header) -> bool, from: i64, end: u64) -> io::Result<Option<(u64, Header)>> {
        let (mut position, mut indexed) = {
            let index = self.index.lock();
            let after = index.partition_point(|entry| entry.offset <= from);
            let start = after.checked_sub(1).and_then(|at| index.get(at)).map_or(0, |entry| entry.position);
            (start, index.last().map(|entry| entry.position))
        };
        let mut head = [0; HEADER_BYTES];
        while position < end {
            self.file.read_exact_at(&mut head, position)?;
            let header =
                Header::read(&head).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a batch"))?;
            if indexed.is_none_or(|last| position >= last.saturating_add(INDEX_STEP_BYTES)) {
                self.remember(Entry { offset: header.base_offset, position });
                indexed = Some(position);
            }
            if wanted(&header) {
                return Ok(Some((position, header)));
            }
            position = position.saturating_add(u64::try_from(header.bytes).unwrap_or(u64::MAX));
        }
        Ok(None)
    }

    fn remember(&self, entry: Entry) {
        let mut index = self.index.lock();
        if index.last().is_none_or(|last| last.position < entry.position) {
            index.push(entry);
        }
    }
}

/// The first intact batch in `bytes` that can follow the offsets before `expected`, with its
/// position.
fn find_batch(bytes: &[u8], expected: i64) -> Option<(usize, Header)> {
    (0..bytes.len()).find_map(|at| {
        let header = Header::read(&bytes[at..])?;
        let ahead = header.base_offset.checked_sub(expected)?;
        ((0..HIDDEN_OFFSETS_MAX).contains(&ahead) && header.is_intact(&bytes[at..])).then_some((at, header))
    })
}

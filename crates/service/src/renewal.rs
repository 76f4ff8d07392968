//! Files that are renewed while a role runs: passwords and certificates.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    time::Duration,
};

/// Files whose contents a role has taken over.
pub struct Renewal {
    files: Vec<PathBuf>,
    taken: Option<u64>,
}

impl Renewal {
    /// The files as they are now. Call it before their contents are used, so that no change in
    /// between is overlooked.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let taken = fingerprint(&files);
        Self { files, taken }
    }

    /// Waits until the files have other contents and have kept them for the time `every`, because
    /// a certificate and its key are written one after the other. Contents that were told once are
    /// not told again. Without files it waits for ever.
    pub async fn changed(&mut self, every: Duration) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        let mut seen = self.taken;
        loop {
            tokio::time::sleep(every).await;
            // A file that cannot be read is being replaced, or will be told by whoever uses it.
            let now = fingerprint(&self.files);
            if now.is_some() && now == seen && now != self.taken {
                self.taken = now;
                return;
            }
            seen = now;
        }
    }
}

/// One number for the contents of all files; `None` if one of them cannot be read.
fn fingerprint(files: &[PathBuf]) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).ok()?.hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    /// How long it took until a change was told; `None` if it was not within a minute.
    async fn told(renewal: &mut Renewal) -> Option<Duration> {
        let begun = tokio::time::Instant::now();
        tokio::time::timeout(Duration::from_secs(60), renewal.changed(EVERY)).await.ok()?;
        Some(begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_when_it_has_stood_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c.pem", "k.pem"].map(|name| folder.path().join(name));
        fs::write(&certificate, "1").unwrap();
        fs::write(&key, "1").unwrap();
        let mut renewal = Renewal::new(vec![certificate.clone(), key.clone()]);
        assert_eq!(told(&mut renewal).await, None);
        fs::write(&certificate, "2").unwrap();
        assert_eq!(told(&mut renewal).await, Some(2 * EVERY));
        assert_eq!(told(&mut renewal).await, None, "told already");
        fs::remove_file(&key).unwrap();
        assert_eq!(told(&mut renewal).await, None, "a file is missing");
        fs::write(&key, "2").unwrap();
        assert_eq!(told(&mut renewal).await, Some(2 * EVERY));
        assert_eq!(told(&mut Renewal::new(Vec::new())).await, None);
    }
}

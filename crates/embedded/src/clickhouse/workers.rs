//! The threads that call into the engine. A call blocks while its statement runs, so no thread of
//! tokio may make one. ClickHouse also analyses deeply nested statements on the caller's stack,
//! which must be large enough.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

/// The same stack size as ClickHouse's own threads.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs from one queue.
pub struct Workers {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Workers {
    /// Starts `count` threads. They end after [`Workers::close`] once all jobs are done.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count {
            let receiver = Arc::clone(&receiver);
            let work = move || {
                loop {
                    let job = service::lock(&receiver).recv();
                    let Ok(job) = job else { return };
                    // The panic hook has printed the panic, and the dropped reply answers the
                    // client. The thread continues.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            };
            thread::Builder::new().name(format!("clickhouse-{number}")).stack_size(STACK_BYTES).spawn(work)?;
        }
        Ok(Self { jobs: Mutex::new(Some(sender)) })
    }

    /// Queues a job. After [`Workers::close`] the job is dropped.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = &*service::lock(&self.jobs) {
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Lets the threads end after the queued jobs.
    pub fn close(&self) {
        service::lock(&self.jobs).take();
    }
}

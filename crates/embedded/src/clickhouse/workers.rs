//! The threads that call into the engine. A call blocks as long as its statement runs, so that no
//! thread of tokio may make one; and ClickHouse analyses deeply nested statements on the caller's
//! stack.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

/// The stack that ClickHouse's own threads have.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs from one queue.
pub struct Workers {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Workers {
    /// Starts `count` threads. They end once the `Workers` are closed and all jobs are done.
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
                    // a panic is printed by its hook and answered by the dropped reply; the thread
                    // goes on
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            };
            thread::Builder::new().name(format!("clickhouse-{number}")).stack_size(STACK_BYTES).spawn(work)?;
        }
        Ok(Self { jobs: Mutex::new(Some(sender)) })
    }

    /// Queues a job. After [`Workers::close`] it is dropped instead.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = &*service::lock(&self.jobs) {
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Lets the threads end after the jobs that are queued.
    pub fn close(&self) {
        service::lock(&self.jobs).take();
    }
}

//! The embedded ClickHouse as a process of its own, for tests that kill it.

use clap::Parser;
use embedded::clickhouse::{self, Options};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serves the embedded ClickHouse engine on its HTTP interface. Prints `ready http://HOST:PORT`
/// once it does; SIGTERM and SIGINT stop it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder of the data
    #[arg(long)]
    data_dir: PathBuf,
    /// Address to listen on; port 0 selects any free port
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Path of libchdb.so
    #[arg(long, env = "DOSELINE_LIBCHDB")]
    library: PathBuf,
    /// Statements that run at once
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests that may wait for a running statement to end
    #[arg(long, default_value_t = 256)]
    waiting: usize,
    /// Password of the user `doseline`, who has all rights; other users only read
    #[arg(long, env = "DOSELINE_CLICKHOUSE_PASSWORD", hide_env_values = true)]
    password: String,
    /// Host name under which clients may address any port, as through a proxy; may be repeated
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = run(Arguments::parse()).await;
    clickhouse::exit_if_running(i32::from(outcome.is_err()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            tracing::error!("{error}{source}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::new(arguments.data_dir, arguments.listen, arguments.library, arguments.password);
    options.connections_max = arguments.connections;
    options.waiting_max = arguments.waiting;
    options.names = arguments.names;
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        stop.cancel();
    });
    let server = clickhouse::start(options, shutdown).await?;
    writeln!(std::io::stdout(), "ready {}", server.url())?;
    server.join().await?;
    Ok(())
}

//! Serving: from the configuration to the signal that ends it. Shell.
//!
//! Invariant: the watchdog is fed only after a message has gone through the broker and back, and a
//! broker that nobody watches over wakes for nothing.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use broker_lite::{
    observe::control, observe::http, observe::logging, observe::manager, observe::metrics,
    observe::probe::Probe, server::Broker,
};
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    cli,
    file::{self, File},
};

/// How long a probe's message may take through the broker.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// What the journal calls the program.
const NAME: &str = "broker-lite";

/// Serves as `config` says, or bare on `port`, until told to stop.
pub(crate) fn main(config: Option<PathBuf>, port: u16) -> ExitCode {
    let loaded = match config.as_deref().map(file::load) {
        None => None,
        Some(Ok(loaded)) => Some(loaded),
        Some(Err(problems)) => return cli::fail(cli::CONFIGURATION, &problems.to_string()),
    };
    let file = match &loaded {
        Some(loaded) => loaded.value.clone(),
        None => File::bare(port),
    };
    if let Err(failure) = logging::init(NAME, file.log.format, &file.log.level) {
        return cli::fail(cli::CONFIGURATION, &format!("{failure:#}"));
    }
    for warning in loaded.iter().flat_map(|loaded| loaded.warnings.iter()) {
        warn!("{warning}");
    }
    let served = tokio::runtime::Runtime::new()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(&file, config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(file: &File, path: Option<PathBuf>) -> anyhow::Result<()> {
    // Before anything starts, so that a signal during the start ends it in order.
    let mut signals = Signals::install()?;
    let broker = Broker::start(&file.broker, None)
        .await
        .context("cannot start the broker")?;
    let mut metrics = serve_metrics(file, &broker).await?;
    let cancel = CancellationToken::new();
    let control = path.is_some().then(|| {
        tokio::spawn(control::serve(
            file.control().into(),
            answerer(&broker),
            cancel.clone(),
        ))
    });
    let mut probe = Probe::new(&broker);
    let mut file = file.clone();
    manager::ready();
    loop {
        tokio::select! {
            () = watchdog_is_due() => feed_watchdog(&mut probe).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.reload.recv() => {
                manager::reloading();
                match reload(&broker, &file, path.as_deref(), &mut metrics).await {
                    Ok(now) => file = now,
                    Err(failure) => manager::reload_refused(&format!("{failure:#}")),
                }
                manager::ready();
            }
        }
    }
    info!("told to stop");
    manager::stopping();
    drop(metrics);
    broker.shutdown().await;
    cancel.cancel();
    if let Some(control) = control {
        // It removes its socket.
        let _ended = control.await;
    }
    Ok(())
}

async fn watchdog_is_due() {
    match manager::watchdog_interval() {
        Some(interval) => sleep(interval).await,
        None => std::future::pending().await,
    }
}

async fn feed_watchdog(probe: &mut Probe) {
    match probe.round_trip(PROBE_TIME).await {
        Ok(()) => manager::alive(),
        Err(lost) => manager::stuck(lost),
    }
}

async fn serve_metrics(file: &File, broker: &Broker) -> anyhow::Result<Option<http::Server>> {
    let Some(config) = &file.metrics else {
        return Ok(None);
    };
    let broker = broker.clone();
    let pages = http::metrics_page(move || metrics::render(&broker.status()));
    let server = http::Server::start(config.address, pages)
        .await
        .with_context(|| format!("cannot serve metrics on {}", config.address))?;
    Ok(Some(server))
}

/// Answers what the control socket may be asked.
fn answerer(broker: &Broker) -> control::Answerer {
    let broker = broker.clone();
    Arc::new(move |question| match question.text {
        "status" => json!(broker.report()).into(),
        other => json!({ "error": format!("{other:?} is no question; ask: status") }).into(),
    })
}

/// A configuration that cannot be used changes nothing.
async fn reload(
    broker: &Broker,
    before: &File,
    path: Option<&std::path::Path>,
    metrics: &mut Option<http::Server>,
) -> anyhow::Result<File> {
    let Some(path) = path else {
        anyhow::bail!("there is no configuration file; the broker was started with --port");
    };
    let loaded = file::load(path)?;
    for warning in loaded.warnings.iter() {
        warn!("{warning}");
    }
    let after = loaded.value;
    let moved = after.metrics != before.metrics;
    let replaced = match moved {
        true => Some(serve_metrics(&after, broker).await?),
        false => None,
    };
    let changed = broker.reload(&after.broker).await?;
    if let Some(replaced) = replaced {
        *metrics = replaced;
    }
    if (&after.log, after.control()) != (&before.log, before.control()) {
        warn!("log and control changed; that takes effect at the next start");
    }
    manager::reloaded(&changed.to_string());
    Ok(after)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Signals> {
        let install = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            reload: install(SignalKind::hangup())?,
        })
    }
}

//! Where simulated wires are: links to pseudo-terminals, and loopback addresses. Shell.
//!
//! Invariant: a wire stands where the configuration says if that can be made here without touching
//! anything of others; else beside, and it is told where.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, fieldbus::simulate::Place};

/// The links, which go when it is dropped.
pub(super) struct Places {
    folder: Folder,
    links: Vec<PathBuf>,
    /// Paths in the configuration, and what stands there now.
    replaced: Vec<(String, String)>,
}

enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Places {
    /// No wire yet; links that cannot stand where they should are made in `folder`.
    pub(super) fn new(folder: Option<PathBuf>) -> anyhow::Result<Places> {
        let folder = match folder {
            Some(path) => {
                fs::create_dir_all(&path)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                Folder::Given(path)
            }
            None => Folder::Temporary(TempDir::with_prefix("gateway-simulate-")?),
        };
        Ok(Places {
            folder,
            links: Vec::new(),
            replaced: Vec::new(),
        })
    }

    /// Serves a line of a configuration; where it is.
    pub(super) async fn of_configuration(
        &mut self,
        config: &Config,
        place: &Place,
        cancel: &CancellationToken,
    ) -> anyhow::Result<String> {
        let bus = config.buses.iter().position(|bus| bus.name == place.name);
        let sensor = config.serials.iter().position(|one| one.name == place.name);
        let (key, wanted) = match (bus, sensor) {
            (Some(index), _) => match (&config.buses[index].port, &config.buses[index].tcp) {
                (None, Some(address)) => {
                    anyhow::ensure!(
                        config.buses[index].tls.is_none(),
                        "bus {:?} has tls, which simulated devices do not speak; try it without",
                        place.name
                    );
                    let at = listen(address, place, cancel).await?;
                    self.replaced
                        .push((format!("bus[{index}].tcp"), at.clone()));
                    return Ok(at);
                }
                (port, _) => (format!("bus[{index}].port"), port.clone()),
            },
            (None, Some(index)) => {
                let port = config.serials[index].port.clone();
                (format!("serial[{index}].port"), Some(port))
            }
            (None, None) => (String::new(), None),
        };
        let at = self.lay(wanted.as_deref(), place, cancel)?;
        self.replaced.push((key, at.clone()));
        Ok(at)
    }

    /// Serves a line where it is asked for, or else in the folder; where it is.
    pub(super) async fn asked_for(
        &mut self,
        tcp: Option<&str>,
        place: &Place,
        cancel: &CancellationToken,
    ) -> anyhow::Result<String> {
        match tcp {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
                serve(listener, place, cancel)
            }
            None => self.lay(None, place, cancel),
        }
    }

    /// What stands in the place of what the configuration says.
    pub(super) fn replaced(&self) -> &[(String, String)] {
        &self.replaced
    }

    fn lay(
        &mut self,
        wanted: Option<&Path>,
        place: &Place,
        cancel: &CancellationToken,
    ) -> anyhow::Result<String> {
        let folder = match &self.folder {
            Folder::Given(path) => path,
            Folder::Temporary(folder) => folder.path(),
        };
        let beside = folder.join(&place.name);
        let link = match wanted {
            Some(path) if can_stand(path) => path.to_owned(),
            _ => beside,
        };
        let path = link.clone();
        place
            .line
            .serve_pty(cancel.clone(), move |terminal| relink(&link, &terminal))
            .with_context(|| format!("cannot lay a serial line at {}", path.display()))?;
        let told = path.display().to_string();
        self.links.push(path);
        Ok(told)
    }
}

/// Serves a bus at the address that the configuration says, if that is free on this machine alone;
/// else at another.
async fn listen(wanted: &str, place: &Place, cancel: &CancellationToken) -> anyhow::Result<String> {
    let wanted: Option<SocketAddr> = wanted.parse().ok();
    if let Some(address) = wanted.filter(|address| address.ip().is_loopback())
        && let Ok(listener) = TcpListener::bind(address).await
    {
        return serve(listener, place, cancel);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    serve(listener.context("no port is free")?, place, cancel)
}

fn serve(
    listener: TcpListener,
    place: &Place,
    cancel: &CancellationToken,
) -> anyhow::Result<String> {
    let address = listener.local_addr().context("a listener has an address")?;
    place.line.serve_tcp(listener, cancel.clone());
    Ok(address.to_string())
}

impl Drop for Places {
    fn drop(&mut self) {
        for link in &self.links {
            if is_ours(link) {
                let _gone = fs::remove_file(link);
            }
        }
    }
}

/// Whether a link can be made here: outside the system's devices, and over nothing of others.
fn can_stand(path: &Path) -> bool {
    let folder = path.parent().is_some_and(Path::is_dir);
    let free = fs::symlink_metadata(path).is_err() || is_ours(path);
    folder && free && !path.starts_with("/dev")
}

/// A link to a pseudo-terminal, as only a simulator makes it.
fn is_ours(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|end| end.starts_with("/dev/pts"))
}

fn relink(link: &Path, terminal: &Path) -> io::Result<()> {
    if is_ours(link) {
        fs::remove_file(link)?;
    }
    symlink(terminal, link)
}

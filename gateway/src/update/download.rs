//! Finds out which release is offered, and brings what is missing of it into staging. Driver.
//!
//! Invariant: what gets into staging was signed by the vendor: the index by the metadata, each chunk by the index. A download
//! that its budget cannot pay is not begun.

use std::{fs, sync::Arc};

use tokio::{runtime::Handle, sync::Mutex};
use tuf::{
    Judges, UpdateError,
    directory::{Directory, StoreFailure},
};
use update::{
    install::{
        source::to_fetch,
        staging::{FLOOR_APPROVAL, SBOM},
    },
    release::{INDEX_MAX, Index, sha256},
    trust::{Trust, clock::DeviceClock},
};

use super::{
    meter::Meter,
    repository::{Blocking, FetchError, Repository, blocking},
    stage::{Stage, StageError, name_of},
};
use crate::{config, credentials::built_at, upstream::budget::Account};

/// What a request and its answer take beside what is asked for, in bytes.
const EXCHANGE: u64 = 2048;

/// Why there is no release in staging.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The repository offers nothing that may be trusted.
    #[error(transparent)]
    Metadata(#[from] UpdateError),
    /// What it offers is no release.
    #[error(transparent)]
    Index(#[from] update::release::Malformed),
    /// For other machines.
    #[error("release {version} is for {hardware}, and this is {here}")]
    WrongHardware {
        /// Its version.
        version: String,
        /// What it is for.
        hardware: String,
        /// What this is.
        here: String,
    },
    /// A file does not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The repository holds other bytes than were signed.
    #[error(
        "the repository gives other bytes for chunk {0} than were signed: it was changed, or something on the way is damaged"
    )]
    Changed(usize),
    /// Nowhere to put it.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// It would cost more than is left.
    #[error(
        "the download takes {needed} bytes, and of the budget of {} bytes a {} {} are left; nothing more is spent",
        .account.limit, .account.period.as_str(), .account.limit.saturating_sub(.account.used)
    )]
    Budget {
        /// Bytes.
        needed: u64,
        /// What they would be taken from.
        account: Account,
    },
    /// A bug ended it.
    #[error("the download ended by a bug: {0}")]
    Bug(String),
}

impl DownloadError {
    /// Whether something was not to be trusted, rather than failed.
    pub(crate) fn is_security(&self) -> bool {
        matches!(
            self,
            DownloadError::Metadata(UpdateError::Refused(_) | UpdateError::NoSuchTarget(_))
                | DownloadError::Index(_)
                | DownloadError::WrongHardware { .. }
        )
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Bytes that are staged of those that are needed.
    pub(crate) done: u64,
    /// Bytes that are needed.
    pub(crate) needed: u64,
    /// Bytes of the whole release as it is stored.
    pub(crate) whole: u64,
}

/// What the repository offers.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) index: Arc<Index>,
    bytes: Arc<Vec<u8>>,
}

/// See the module's description.
pub(crate) struct Downloader {
    config: config::Update,
    stage: Stage,
    meter: Meter,
    repository: Arc<Mutex<Repository>>,
}

impl Downloader {
    /// With the proxy of `upstream`.
    ///
    /// # Errors
    /// The address, the anchors or the directories cannot be used.
    pub(crate) fn new(
        config: &config::Update,
        upstream: Option<&config::Upstream>,
    ) -> Result<Downloader, DownloadError> {
        let stage = Stage::open(config)?;
        let meter = Meter::open(config);
        let repository = Repository::new(config, upstream, meter.clone())?;
        Ok(Downloader {
            config: config.clone(),
            stage,
            meter,
            repository: Arc::new(Mutex::new(repository)),
        })
    }

    /// Brings the metadata up to date, and says which release they name.
    ///
    /// # Errors
    /// What they offer is not to be trusted, or not for this device; nobody answers.
    pub(crate) async fn look(&self) -> Result<Offer, DownloadError> {
        let (config, stage) = (self.config.clone(), self.stage.clone());
        let repository = Arc::clone(&self.repository);
        let runtime = Handle::current();
        let looked = blocking(move || {
            let mut repository = repository.blocking_lock();
            signed_index(&config, &stage, &mut repository, &runtime)
        });
        let bytes = looked.await.map_err(DownloadError::Bug)?;
        self.meter.settle();
        let bytes = bytes?;
        let index = Index::parse(&bytes)?;
        let about = index.about();
        if !about.hardware.contains(&self.config.hardware) {
            return Err(DownloadError::WrongHardware {
                version: about.version.clone(),
                hardware: about.hardware.join(", "),
                here: self.config.hardware.clone(),
            });
        }
        Ok(Offer {
            index: Arc::new(index),
            bytes: Arc::new(bytes),
        })
    }

    /// Brings what neither staging nor the release that runs has; `also` is what the updater found missing besides.
    ///
    /// # Errors
    /// The budget, the disk or the repository do not give it. What came is kept for the next time.
    pub(crate) async fn fetch(
        &self,
        offer: &Offer,
        running: Option<&str>,
        also: &[u32],
        tell: &mut (dyn FnMut(Fetched) + Send),
    ) -> Result<(), DownloadError> {
        let fetched = self.fetch_all(offer, running, also, tell).await;
        self.meter.settle();
        fetched
    }

    async fn fetch_all(
        &self,
        offer: &Offer,
        running: Option<&str>,
        also: &[u32],
        tell: &mut (dyn FnMut(Fetched) + Send),
    ) -> Result<(), DownloadError> {
        let index = &offer.index;
        let missing = self.missing(offer, running, also).await?;
        let lengths = missing
            .iter()
            .map(|at| u64::from(index.chunks()[*at].stored_length));
        let mut fetched = Fetched {
            done: 0,
            needed: lengths.clone().sum(),
            whole: index.stored_bytes(),
        };
        self.stage.admit(fetched.needed)?;
        self.afford(fetched.needed + missing.len() as u64 * EXCHANGE)?;
        tell(fetched);
        let mut repository = self.repository.lock().await;
        self.fetch_papers(index, &mut repository).await?;
        for number in missing {
            let chunk = &index.chunks()[number];
            let length = u64::from(chunk.stored_length);
            self.afford(length + EXCHANGE)?;
            let path = format!("chunks/{}", name_of(chunk));
            let bytes = repository.exactly(&path, length).await?;
            if sha256(&[&bytes]) != chunk.stored {
                return Err(DownloadError::Changed(number));
            }
            self.stage.add(chunk, &bytes)?;
            fetched.done += length;
            tell(fetched);
        }
        Ok(())
    }

    /// Numbers of the chunks to be fetched, after the index was staged.
    async fn missing(
        &self,
        offer: &Offer,
        running: Option<&str>,
        also: &[u32],
    ) -> Result<Vec<usize>, DownloadError> {
        let (stage, offer) = (self.stage.clone(), offer.clone());
        let running = running.map(str::to_owned);
        let also: Vec<usize> = also.iter().map(|number| *number as usize).collect();
        let found = blocking(move || {
            let Offer { index, bytes } = offer;
            stage.begin(&index, &bytes)?;
            let running = running.and_then(|root| stage.remembered(&root));
            let also = also
                .into_iter()
                .filter(|number| *number < index.chunks().len());
            let mut wanted: Vec<usize> = to_fetch(&index, running.as_ref()).chain(also).collect();
            wanted.sort_unstable();
            wanted.dedup();
            wanted.retain(|number| !stage.has(&index.chunks()[*number]));
            Ok::<_, StageError>(wanted)
        });
        Ok(found.await.map_err(DownloadError::Bug)??)
    }

    /// What belongs to a release beside its image, where the repository has it.
    async fn fetch_papers(
        &self,
        index: &Index,
        repository: &mut Repository,
    ) -> Result<(), DownloadError> {
        let about = index.about();
        let approval = format!("metadata/{}.floor.approval.json", about.epoch);
        let approval = match repository.at_most(&approval, tpm::APPROVAL_MAX).await {
            Ok(bytes) => Some(bytes),
            Err(FetchError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.stage.put(FLOOR_APPROVAL, approval.as_deref())?;
        let Some(listed) = about.sbom else {
            return Ok(self.stage.put(SBOM, None)?);
        };
        let path = format!("sbom/{}", tpm::hex::encode(&listed.sha256));
        let length = u64::from(listed.length);
        self.afford(length + EXCHANGE)?;
        let text = repository.exactly(&path, length).await?;
        match sha256(&[&text]) == listed.sha256 {
            true => Ok(self.stage.put(SBOM, Some(&text))?),
            false => Err(FetchError::Answer {
                path,
                why: "it is not the one that was signed".to_owned(),
            }
            .into()),
        }
    }

    /// The release is installed: its chunks are not needed any more.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn clear(&self) -> Result<(), DownloadError> {
        Ok(self.stage.clear()?)
    }

    /// Bytes over the wire since the process started.
    pub(crate) fn total(&self) -> u64 {
        self.meter.total()
    }

    fn afford(&self, needed: u64) -> Result<(), DownloadError> {
        match self.meter.lacks(needed) {
            Some(account) => Err(DownloadError::Budget { needed, account }),
            None => Ok(()),
        }
    }
}

/// The index that the metadata name, checked by them.
fn signed_index(
    config: &config::Update,
    stage: &Stage,
    repository: &mut Repository,
    runtime: &Handle,
) -> Result<Vec<u8>, DownloadError> {
    // The updater asks the TPM; what passes here only decides what is downloaded.
    let trust = Trust::without_tpm(&config.directory);
    let verifier = trust.verifier();
    let clock = DeviceClock::load(built_at(), &config.directory);
    let judges = Judges {
        verifier: verifier.as_ref(),
        clock: &clock,
    };
    let directory = Directory::open(&stage.metadata()).map_err(UpdateError::from)?;
    if !directory.path().join("root.json").exists() {
        let root = fs::read(&config.root).map_err(|error| {
            UpdateError::from(StoreFailure::Disk {
                action: "read",
                path: config.root.clone(),
                error,
            })
        })?;
        tuf::init(&directory, &root, judges)?;
    }
    let mut keep_root = |name: &str, bytes: &[u8]| stage.keep_root(name, bytes);
    let mut fetcher = Blocking {
        repository,
        runtime: runtime.clone(),
        roots: &mut keep_root,
    };
    let mut floors = trust.floors();
    let mut update = tuf::refresh(&directory, &mut fetcher, judges, floors.as_mut())?;
    let target = update.find(&config.target)?;
    if target.length > INDEX_MAX {
        let refusal = tuf::refusal::Refusal::Oversized {
            file: target.path,
            limit: INDEX_MAX,
        };
        return Err(UpdateError::from(refusal).into());
    }
    let mut bytes = Vec::new();
    update.copy(&target, &mut bytes)?;
    Ok(bytes)
}

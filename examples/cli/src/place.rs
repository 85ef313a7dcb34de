//! Where a repository is: parsed once, so that further kinds of store have their place here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::backup_backend::{
    Counting, KeyPrefix, LocalFs, LocalFsOptions, ObjectKey, RetryPolicy, Retrying, StorageBackend,
    StorageBackendExt,
};
use backup::{OpenOptions, Repository};
use backup_backend_s3::{S3, S3Config};
use futures::TryStreamExt;

use crate::args::GlobalArguments;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::unlock::Secret;

/// Where a repository is.
#[derive(Debug)]
pub(crate) enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// A bucket, or what is below a prefix of it.
    S3 { url: String, config: Box<S3Config> },
}

/// The store of a repository.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) backend: Arc<dyn StorageBackend>,
    /// The same store, where it is one of this kind.
    pub(crate) s3: Option<Arc<S3>>,
}

/// `s3` of `s3://bucket/prefix`.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let rest = scheme.strip_prefix(|first: char| first.is_ascii_alphabetic())?;
    let is_scheme = rest
        .chars()
        .all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
    is_scheme.then_some(scheme)
}

impl Place {
    /// The place named by the arguments.
    pub(crate) fn of(global: &GlobalArguments) -> Result<Self, Failure> {
        let text = global.repo.as_deref().unwrap_or_default();
        match scheme(text) {
            None => Ok(Self::Local(text.into())),
            Some("s3") => Ok(Self::S3 {
                url: text.into(),
                config: Box::new(global.s3.config(text)?),
            }),
            Some(scheme) => Err(Failure::UnknownScheme {
                scheme: scheme.into(),
            }),
        }
    }

    /// Opens the store of a repository that exists.
    pub(crate) fn open(self, ui: &Ui) -> Result<Store, Failure> {
        match self {
            Self::Local(path) => {
                let store = LocalFs::open(path, LocalFsOptions::default());
                let store = store.map_err(|source| Failure::Place { source })?;
                Ok(Store::local(ui, store))
            }
            Self::S3 { config, .. } => Store::s3(ui, *config),
        }
    }

    /// Makes the store for a new repository, unless something else is there.
    pub(crate) async fn create(self, ui: &Ui) -> Result<Store, Failure> {
        match self {
            Self::Local(path) => {
                let names = std::fs::read_dir(&path).into_iter().flatten().flatten();
                let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
                refuse_if_taken(&path, names.collect())?;
                let store = LocalFs::create(&path, LocalFsOptions::default());
                let store = store.map_err(|source| Failure::Place { source })?;
                Ok(Store::local(ui, store))
            }
            Self::S3 { url, config } => {
                let store = Store::s3(ui, *config)?;
                let first = store.backend.list(&KeyPrefix::all()).try_next().await;
                let first = first.map_err(backup::Error::from)?;
                let names = first.unwrap_or_default().into_iter().map(|object| {
                    let key = object.key.as_str();
                    key.split_once('/').map_or(key, |(top, _)| top).to_owned()
                });
                refuse_if_taken(Path::new(&url), names.collect())?;
                Ok(store)
            }
        }
    }

    /// The directory, when it is one of this machine.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Local(path) => path.canonicalize().ok(),
            Self::S3 { .. } => None,
        }
    }
}

/// A place that holds a repository is told as such by whoever looks closer.
fn refuse_if_taken(place: &Path, names: Vec<String>) -> Result<(), Failure> {
    if names.iter().any(|name| name == "config") {
        return Ok(());
    }
    // What a crash of an earlier `init` leaves behind is no obstacle.
    let ours = |name: &str| matches!(name, ".tmp" | "keys");
    match names.into_iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(found) => Err(Failure::PlaceTaken {
            place: place.to_owned(),
            found,
        }),
    }
}

impl Store {
    fn local(ui: &Ui, store: LocalFs) -> Self {
        let counting = Counting::new(store);
        ui.counts(counting.counters());
        Self {
            backend: Arc::new(counting),
            s3: None,
        }
    }

    fn s3(ui: &Ui, config: S3Config) -> Result<Self, Failure> {
        let mut policy = RetryPolicy::default();
        policy.elapsed_ms_max = config.call_ms_max;
        let store = Arc::new(S3::new(config).map_err(|source| Failure::S3 { source })?);
        // The counting is inside: a call that is repeated is several requests.
        let counting = Counting::new(store.clone());
        ui.counts(counting.counters());
        Ok(Self {
            backend: Arc::new(Retrying::new(counting, policy)),
            s3: Some(store),
        })
    }
}

/// Whether a repository is in the store.
pub(crate) async fn holds_repository(store: &Arc<dyn StorageBackend>) -> Result<bool, Failure> {
    let Ok(config) = ObjectKey::parse("config") else {
        return Ok(false);
    };
    let found = store.get_opt(&config).await.map_err(backup::Error::from)?;
    Ok(found.is_some())
}

/// Opens the repository that the arguments name, with the secret they name.
pub(crate) async fn open(ui: &Ui, global: &GlobalArguments) -> Result<Repository, Failure> {
    Ok(open_with_secret(ui, global).await?.0)
}

/// As [`open`], and keeps the secret.
pub(crate) async fn open_with_secret(
    ui: &Ui,
    global: &GlobalArguments,
) -> Result<(Repository, Secret), Failure> {
    let store = Place::of(global)?.open(ui)?.backend;
    let secret = match Secret::at_hand(global).await {
        Ok(Some(secret)) => secret,
        // Before a person types a passphrase, or looks for a key file, for nothing.
        Ok(None) | Err(_) if !holds_repository(&store).await? => {
            return Err(backup::Error::NotARepository.into());
        }
        Ok(None) => Secret::typed(global).await?,
        Err(failure) => return Err(failure),
    };
    let repo = Repository::open(store, secret.credential(), OpenOptions::default()).await?;
    Ok((repo, secret))
}

#[cfg(test)]
mod tests {
    use super::scheme;

    #[test]
    fn only_urls_have_a_scheme() {
        assert_eq!(scheme("s3://bucket/prefix"), Some("s3"));
        for path in ["/srv/a b", "./s3://bucket", "c:\\x://y"] {
            assert_eq!(scheme(path), None, "{path}");
        }
    }
}

//! Where a repository is: parsed once, so that further kinds of store have their place here.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use backup::backup_backend::{
    LocalFs, LocalFsOptions, ObjectKey, StorageBackend, StorageBackendExt,
};
use backup::{OpenOptions, Repository};

use crate::args::GlobalArguments;
use crate::failure::Failure;
use crate::unlock::Secret;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory of this machine.
    Local(PathBuf),
}

impl FromStr for Place {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match scheme(text) {
            None => Ok(Self::Local(text.into())),
            Some(scheme) => Err(Failure::UnknownScheme {
                scheme: scheme.into(),
            }),
        }
    }
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
        global.repo.as_deref().unwrap_or_default().parse()
    }

    /// Opens the store of a repository that exists.
    pub(crate) fn open(&self) -> Result<Arc<dyn StorageBackend>, Failure> {
        let Self::Local(path) = self;
        let store = LocalFs::open(path, LocalFsOptions::default());
        Ok(Arc::new(store.map_err(|source| Failure::Place { source })?))
    }

    /// Makes the store for a new repository, unless something else is there.
    pub(crate) fn create(&self) -> Result<Arc<dyn StorageBackend>, Failure> {
        let Self::Local(path) = self;
        if let Ok(mut entries) = std::fs::read_dir(path) {
            // What a crash of an earlier `init` leaves behind is no obstacle.
            let ours = |name: &str| matches!(name, ".tmp" | "keys" | "config");
            let names = entries
                .by_ref()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned());
            let names: Vec<String> = names.collect();
            let is_repository = names.iter().any(|name| name == "config");
            if let Some(found) = names.into_iter().find(|name| !ours(name))
                && !is_repository
            {
                return Err(Failure::PlaceTaken {
                    place: path.clone(),
                    found,
                });
            }
        }
        let store = LocalFs::create(path, LocalFsOptions::default());
        Ok(Arc::new(store.map_err(|source| Failure::Place { source })?))
    }

    /// The directory, when it is one of this machine.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let Self::Local(path) = self;
        path.canonicalize().ok()
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
pub(crate) async fn open(global: &GlobalArguments) -> Result<Repository, Failure> {
    Ok(open_with_secret(global).await?.0)
}

/// As [`open`], and keeps the secret.
pub(crate) async fn open_with_secret(
    global: &GlobalArguments,
) -> Result<(Repository, Secret), Failure> {
    let store = Place::of(global)?.open()?;
    // Before a person types a passphrase for nothing.
    if !holds_repository(&store).await? {
        return Err(backup::Error::NotARepository.into());
    }
    let secret = Secret::existing(global).await?;
    let repo = Repository::open(store, secret.credential(), OpenOptions::default()).await?;
    Ok((repo, secret))
}

#[cfg(test)]
mod tests {
    use super::{Place, scheme};

    #[test]
    fn directories_are_places_and_unknown_schemes_are_not() {
        assert_eq!(
            "/srv/a b".parse::<Place>().unwrap(),
            Place::Local("/srv/a b".into())
        );
        assert_eq!(
            "c:\\x://y".parse::<Place>().unwrap(),
            Place::Local("c:\\x://y".into())
        );
        assert_eq!(scheme("s3://bucket/prefix"), Some("s3"));
        assert_eq!(scheme("./s3://bucket"), None);
        assert!(
            "s3://bucket"
                .parse::<Place>()
                .unwrap_err()
                .to_string()
                .contains("s3://")
        );
    }
}

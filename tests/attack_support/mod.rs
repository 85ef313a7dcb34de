//! What the attack and fault tests share: repositories over a backend in memory, taken apart and put together again.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several test programs, none of which uses all of it; a test fails by panicking"
)]

pub mod forge;
pub mod pages;
pub mod sentinel;
pub mod trees;
pub mod yielding;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use backup::{
    Argon2Params, BackupOptions, ChunkerParams, CreateOptions, Credential, Error, MasterKey,
    Repository, RestoreOptions, RestoreReport, RestoreTarget, SessionId, Source, VerifyLevel,
    VerifyReport, Zeroizing, add_key, backup, restore, verify,
};
use backup_backend::{
    Bytes, KeyPrefix, Memory, ObjectKey, PutMode, StorageBackend, StorageBackendExt,
};
use backup_manifest::snapshot_key;
use tempfile::TempDir;

use trees::Listing;

/// All objects of a store, by key.
pub type Objects = BTreeMap<String, Bytes>;

/// The byte that the master key of the sample consists of.
pub const MASTER: u8 = 7;
pub const PASSPHRASE: &str = "correct horse battery staple";
pub const HOST_KEY: [u8; 32] = [0x5a; 32];

/// Argon2id as cheap as it goes: what it costs is tested elsewhere.
pub const CHEAP: Argon2Params = Argon2Params {
    m_kib: 8,
    t: 1,
    p: 1,
};

pub fn master(byte: u8) -> MasterKey {
    MasterKey::from_bytes(Zeroizing::new([byte; 32]))
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

pub async fn objects_of(store: &impl StorageBackend) -> Objects {
    let mut objects = Objects::new();
    for object in store.list_all(&KeyPrefix::all()).await.unwrap() {
        let bytes = store.get(&object.key, None).await.unwrap();
        objects.insert(object.key.to_string(), bytes);
    }
    objects
}

pub async fn memory_of(objects: &Objects) -> Memory {
    let store = Memory::new();
    for (name, bytes) in objects {
        store
            .put(&key(name), bytes.clone(), PutMode::Create)
            .await
            .unwrap();
    }
    store
}

/// Opens the objects as a repository, with the master key.
pub async fn try_open(objects: &Objects) -> Result<Repository, Error> {
    let store = Arc::new(memory_of(objects).await);
    Repository::open(
        store,
        Credential::Master(master(MASTER)),
        Default::default(),
    )
    .await
}

pub async fn open(objects: &Objects) -> Repository {
    try_open(objects).await.unwrap()
}

pub async fn create(store: Arc<dyn StorageBackend>, master_byte: u8) -> Repository {
    let mut options = CreateOptions::default();
    options.chunker = ChunkerParams::new(4 << 10, 16 << 10, 64 << 10).unwrap();
    options.argon2 = CHEAP;
    Repository::create(store, Credential::Master(master(master_byte)), options)
        .await
        .unwrap()
}

/// One block a pack, and a block a quarter of a mebibyte, so that damage to one pack leaves other files whole.
pub fn small_packs() -> BackupOptions {
    let mut options = BackupOptions::default();
    options.pack_len = 64 << 10;
    options.block_len = 256 << 10;
    options.memory_len_max = 64 << 20;
    options
}

/// A snapshot and what it must give back.
#[derive(Debug)]
pub struct Taken {
    pub source: &'static str,
    pub id: SessionId,
    pub expected: Expected,
}

#[derive(Debug)]
pub enum Expected {
    Tree(Listing),
    Bytes(Vec<u8>),
}

/// A repository with three sources and four snapshots, and two key slots.
#[derive(Debug)]
pub struct Sample {
    pub objects: Objects,
    pub taken: Vec<Taken>,
}

/// Made once for each test program.
pub fn sample() -> &'static Sample {
    static SAMPLE: LazyLock<Sample> = LazyLock::new(|| apart(build_sample(MASTER)));
    &SAMPLE
}

/// The same content under the same keys in a repository of another identity.
pub fn twin() -> &'static Sample {
    static TWIN: LazyLock<Sample> = LazyLock::new(|| apart(build_sample(MASTER)));
    &TWIN
}

/// The same content in a repository of other keys.
pub fn stranger() -> &'static Sample {
    static STRANGER: LazyLock<Sample> = LazyLock::new(|| apart(build_sample(8)));
    &STRANGER
}

/// Runs a future to its end on a runtime and a thread of its own.
pub fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    std::thread::spawn(move || run().block_on(work))
        .join()
        .unwrap()
}

async fn build_sample(master_byte: u8) -> Sample {
    let store = Memory::new();
    let repo = create(Arc::new(store.clone()), master_byte).await;
    for added in [
        Credential::passphrase(PASSPHRASE),
        Credential::Key(HOST_KEY.into()),
    ] {
        add_key(
            &repo,
            Credential::Master(master(master_byte)),
            added,
            "a label",
            CHEAP,
        )
        .await
        .unwrap();
    }
    let scratch = TempDir::new().unwrap();
    let mut taken = Vec::new();

    let alpha = scratch.path().join("alpha");
    trees::make_alpha(&alpha);
    taken.push(take(&repo, "alpha", &alpha).await);
    std::fs::write(alpha.join("docs/new"), trees::noise(11, 40_000)).unwrap();
    taken.push(take(&repo, "alpha", &alpha).await);

    let beta = scratch.path().join("beta");
    trees::make_beta(&beta);
    taken.push(take(&repo, "beta", &beta).await);

    let mut disk = trees::noise(21, 1_500_000);
    disk.extend(vec![0; 1 << 20]);
    disk.extend(trees::noise(22, 500_000));
    let source = Source::stream(std::io::Cursor::new(disk.clone()));
    let report = backup(&repo, "disk", source, &small_packs(), &())
        .await
        .unwrap();
    let expected = Expected::Bytes(disk);
    taken.push(Taken {
        source: "disk",
        id: report.snapshot,
        expected,
    });
    Sample {
        objects: objects_of(&store).await,
        taken,
    }
}

pub async fn take(repo: &Repository, source: &'static str, root: &Path) -> Taken {
    let report = backup(repo, source, Source::tree(root), &small_packs(), &())
        .await
        .unwrap();
    assert!(report.is_complete(), "{:?}", report.skipped);
    Taken {
        source,
        id: report.snapshot,
        expected: Expected::Tree(trees::listing(root)),
    }
}

/// A place to restore to: a directory of its own with nothing in it, and the target in that directory.
#[derive(Debug)]
pub struct Spot {
    pub above: TempDir,
    pub target: PathBuf,
}

pub fn spot() -> Spot {
    let above = TempDir::new().unwrap();
    let target = above.path().join("target");
    Spot { above, target }
}

impl Spot {
    /// Neither the target nor anything temporary is there.
    pub fn assert_empty(&self, what: &str) {
        let left: Vec<_> = std::fs::read_dir(self.above.path())
            .unwrap()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{what}: left behind {left:?}");
    }

    /// Nothing but the target is there.
    pub fn assert_only_target(&self, what: &str) {
        let left = std::fs::read_dir(self.above.path()).unwrap().flatten();
        let others: Vec<_> = left
            .map(|e| e.path())
            .filter(|p| *p != self.target)
            .collect();
        assert!(others.is_empty(), "{what}: left behind {others:?}");
    }
}

/// Restores a snapshot to a new place. What is not as it was must be named in the report; after an error there is nothing
/// at all. Returns the paths that were skipped.
pub async fn restore_checked(repo: &Repository, taken: &Taken) -> Result<Vec<String>, Error> {
    let spot = spot();
    let to = match taken.expected {
        Expected::Tree(_) => RestoreTarget::Directory(spot.target.clone()),
        Expected::Bytes(_) => RestoreTarget::File(spot.target.clone()),
    };
    let report = match restore(repo, &taken.id, to, &RestoreOptions::default(), &()).await {
        Ok(report) => report,
        Err(error) => {
            spot.assert_empty(&format!("{error:?}"));
            return Err(error);
        }
    };
    spot.assert_only_target(taken.source);
    match &taken.expected {
        Expected::Bytes(bytes) => {
            assert!(report.is_complete());
            assert!(
                std::fs::read(&spot.target).unwrap() == *bytes,
                "silent: other bytes"
            );
        }
        Expected::Tree(expected) => {
            assert_eq!(report.unset, [], "nothing was left unset");
            assert_same_but_skipped(expected, &spot.target, &report);
        }
    }
    Ok(report
        .skipped
        .iter()
        .map(|skipped| skipped.path.to_string())
        .collect())
}

fn assert_same_but_skipped(expected: &Listing, target: &Path, report: &RestoreReport) {
    let found = trees::listing(target);
    for (path, node) in expected {
        let is_skipped = report
            .skipped
            .iter()
            .any(|s| s.path.as_bytes() == path.as_slice());
        let text = String::from_utf8_lossy(path);
        match found.get(path) {
            Some(got) if is_skipped => panic!("{text}: skipped, and there: {got:?}"),
            // A hard link of which other names were skipped counts fewer names.
            Some(got) => assert!(
                got.same_but_names(node),
                "silent: {text} is {got:?}, was {node:?}"
            ),
            None => assert!(is_skipped, "silent: {text} is not there"),
        }
    }
    let added: Vec<_> = found
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    assert!(added.is_empty(), "{added:?}");
}

/// Every snapshot but those named comes back whole.
pub async fn assert_rest_whole(repo: &Repository, sample: &Sample, but: &[SessionId]) {
    for taken in sample.taken.iter().filter(|taken| !but.contains(&taken.id)) {
        let skipped = restore_checked(repo, taken).await;
        assert_eq!(skipped.unwrap(), Vec::<String>::new(), "{}", taken.source);
    }
}

pub async fn verified(repo: &Repository, level: VerifyLevel) -> VerifyReport {
    verify(repo, level, &())
        .await
        .expect("findings are no errors")
}

/// The report names this object, and, when one is given, this snapshot as hurt by it.
pub fn assert_names(report: &VerifyReport, object: &str, hurt: Option<SessionId>) {
    let names = report.damage.iter().any(|damage| {
        damage.object == object && hurt.is_none_or(|id| damage.snapshots.contains(&id))
    });
    assert!(
        names,
        "{object} (hurting {hurt:?}) is not in {:#?}",
        report.damage
    );
}

/// The error is `Damaged` and names the cell of this snapshot.
pub fn assert_cell_damaged<T: std::fmt::Debug>(result: Result<T, Error>, id: &SessionId) {
    match result {
        Err(Error::Damaged { object, .. }) => assert_eq!(object, snapshot_key(id)),
        other => panic!("{other:?} instead of a damaged {}", snapshot_key(id)),
    }
}

/// The names of the objects under a prefix.
pub fn under(objects: &Objects, prefix: &str) -> Vec<String> {
    objects
        .keys()
        .filter(|name| name.starts_with(prefix))
        .cloned()
        .collect()
}

/// Exchanges the bytes of two objects.
pub fn swap(objects: &mut Objects, one: &str, other: &str) {
    let (a, b) = (objects[one].clone(), objects[other].clone());
    objects.insert(one.into(), b);
    objects.insert(other.into(), a);
}

/// Restores a tree to `spot`.
pub async fn restore_to(
    repo: &Repository,
    id: &SessionId,
    spot: &Spot,
) -> Result<RestoreReport, Error> {
    let to = RestoreTarget::Directory(spot.target.clone());
    restore(repo, id, to, &RestoreOptions::default(), &()).await
}

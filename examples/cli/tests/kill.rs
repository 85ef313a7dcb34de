//! Kills the program at random moments of a backup, again and again in one repository. What was committed restores, and
//! what was stored is not stored again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backup::backup_backend::{KeyPrefix, LocalFs, LocalFsOptions, StorageBackendExt};
use backup::{
    Credential, OpenOptions, Repository, RestoreOptions, RestoreTarget, SessionId, SnapshotFilter,
    VerifyLevel, restore, snapshots, stats, verify,
};
use tempfile::TempDir;

/// The short files: their number, and the length of each in bytes.
const SHORT: (u64, usize) = (300, 10_000);
/// The long ones. Together three full packs.
const LONG: (u64, usize) = (24, 3 << 20);
/// Every so many kills, this many of the long files change: enough for a full pack.
const LARGE_CHANGE: (u64, u64) = (12, 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_cost_nothing_that_was_committed_and_store_nothing_twice() {
    check(1, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: scripts/kill-loop"]
async fn a_thousand_kills_cost_nothing_that_was_committed_and_store_nothing_twice() {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    check(u64::from_le_bytes(seed), 1000).await;
}

async fn check(seed: u64, kills: u64) {
    println!("SEED={seed}");
    let mut test = Test::new(seed);
    let mut limit_ms = 100;
    let mut killed = 0;
    for round in 1..=kills {
        let mut child = test.start();
        std::thread::sleep(Duration::from_millis(test.random.below(limit_ms)));
        // The moments find their place by themselves: about as many kills come too late as not.
        if is_killed(&mut child) {
            killed += 1;
            limit_ms = (limit_ms * 10).div_ceil(9);
        } else {
            limit_ms = (limit_ms * 4 / 5).max(20);
        }
        test.look(round % 10 == 0).await;
        test.change(round);
    }
    assert!(test.start().wait().unwrap().success());
    test.look(true).await;
    test.assert_all().await;
    let stored = pack_bytes(&test.open().await).await;
    assert!(
        killed * 3 > kills,
        "only {killed} of {kills} runs were killed"
    );
    println!(
        "{killed} of {kills} runs were killed: {} snapshots, {} times something was left, {stored} bytes stored, {} unique",
        test.known.len(),
        test.leftovers,
        test.unique
    );
}

/// Kills it, as kill -9 does; `false` when it was done already, which must be well done.
fn is_killed(child: &mut Child) -> bool {
    if let Some(status) = child.try_wait().unwrap() {
        assert!(status.success(), "{status}");
        return false;
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.code().is_none(), "{status}");
    !status.success()
}

/// What every file holds: the seed of its bytes.
type State = BTreeMap<String, (u64, usize)>;

struct Test {
    scratch: TempDir,
    random: Random,
    state: State,
    /// What the snapshots hold.
    known: BTreeMap<SessionId, State>,
    /// Bytes of content that were ever there.
    unique: u64,
    runs: u64,
    leftovers: u64,
    /// Counts up, so that no bytes are ever written twice.
    seeds: u64,
}

impl Test {
    fn new(seed: u64) -> Self {
        let scratch = TempDir::new().unwrap();
        let mut test = Self {
            scratch,
            random: Random(seed),
            state: State::new(),
            known: BTreeMap::new(),
            unique: 0,
            runs: 0,
            leftovers: 0,
            seeds: seed.wrapping_mul(1_000_003),
        };
        for number in 0..SHORT.0 {
            test.write(&format!("{}/short {number}", number % 9), SHORT.1);
        }
        for number in 0..LONG.0 {
            test.write(&format!("long/{number}"), LONG.1);
        }
        let made = test.program(&["init", "--quiet"]).status().unwrap();
        assert!(made.success());
        test
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command
            .env_remove("BACKUP_PASSPHRASE")
            .env("BACKUP_REPOSITORY", self.path("repo"))
            .env("BACKUP_KEY_FILE", self.path("key"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn start(&mut self) -> Child {
        self.runs += 1;
        let tree = self.path("tree");
        let mut command = self.program(&["backup", "--quiet", "--name", "tree"]);
        command.arg(tree).spawn().unwrap()
    }

    fn write(&mut self, name: &str, len: usize) {
        self.seeds += 1;
        let path = self.path("tree").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(len, self.seeds)).unwrap();
        self.state.insert(name.into(), (self.seeds, len));
        self.unique += len as u64;
    }

    /// Writes two files anew, and now and then more.
    fn change(&mut self, round: u64) {
        let number = self.random.below(SHORT.0);
        self.write(&format!("{}/short {number}", number % 9), SHORT.1);
        let number = self.random.below(LONG.0);
        self.write(&format!("long/{number}"), LONG.1 / 6);
        if round.is_multiple_of(LARGE_CHANGE.0) {
            for _ in 0..LARGE_CHANGE.1 {
                let number = self.random.below(LONG.0);
                self.write(&format!("long/{number}"), LONG.1);
            }
        }
    }

    /// Opens the repository as the next run does.
    async fn open(&mut self) -> Repository {
        let left = self.temporaries();
        self.leftovers += u64::from(left > 0);
        let store = LocalFs::open(self.path("repo"), LocalFsOptions::default()).unwrap();
        assert_eq!(self.temporaries(), 0, "of {left} files that a kill left");
        let digits = fs::read_to_string(self.path("key")).unwrap();
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
        }
        let key = Credential::Key(key.into());
        Repository::open(Arc::new(store), key, OpenOptions::default())
            .await
            .unwrap()
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.path("repo/.tmp")).map_or(0, Iterator::count)
    }

    /// Opens the repository after a run: it is sound, no snapshot is gone, and a new one holds what is in the tree.
    async fn look(&mut self, restores: bool) {
        let repo = self.open().await;
        let found = verify(&repo, VerifyLevel::Structure, &()).await.unwrap();
        assert!(found.is_sound(), "{:?}", found.damage);
        let before = self.known.len();
        let all = snapshots(&repo, &SnapshotFilter::default()).await.unwrap();
        let known = all.iter().filter(|s| self.known.contains_key(&s.session));
        assert_eq!(known.count(), before, "a snapshot is gone");
        for manifest in all {
            assert!(manifest.complete);
            self.known
                .entry(manifest.session)
                .or_insert_with(|| self.state.clone());
        }
        assert!(self.known.len() <= before + 1);
        self.assert_stored_once(&repo).await;
        let count = self.known.len() as u64;
        if restores && count > 0 {
            let chosen = *self
                .known
                .keys()
                .nth(self.random.below(count) as usize)
                .unwrap();
            self.assert_restores(&repo, &chosen).await;
        }
    }

    /// The content is noise, which does not compress: stored once, it takes as much as it is long; a chunk that is stored
    /// twice is one chunk only for the index. Beside it there are padding, at most a thirty-second of a long pack and an
    /// eighth of a short one, and for each run its pages of items (20 bytes for each of some 3,000 chunks at most).
    async fn assert_stored_once(&self, repo: &Repository) {
        let stored = pack_bytes(repo).await;
        let known = stats(repo).await.unwrap().chunk_bytes;
        let beside = known / 32 + self.runs * 100_000;
        assert!(
            stored <= known + beside,
            "{stored} bytes stored for {known} that differ"
        );
        assert!(
            stored <= self.unique + beside,
            "{stored} bytes stored of {}",
            self.unique
        );
    }

    async fn assert_restores(&self, repo: &Repository, snapshot: &SessionId) {
        let place = self.path("restored");
        let target = RestoreTarget::Directory(place.clone());
        let report = restore(repo, snapshot, target, &RestoreOptions::default(), &())
            .await
            .unwrap();
        assert!(report.is_complete());
        let state = &self.known[snapshot];
        assert_eq!(report.files, state.len() as u64);
        for (name, (seed, len)) in state {
            assert!(
                fs::read(place.join(name)).unwrap() == noise(*len, *seed),
                "{name}"
            );
        }
        fs::remove_dir_all(place).unwrap();
    }

    /// Every snapshot that ever was restores, and every byte in the store is what it should be.
    async fn assert_all(&mut self) {
        let repo = self.open().await;
        for snapshot in self.known.keys() {
            self.assert_restores(&repo, snapshot).await;
        }
        let found = verify(&repo, VerifyLevel::AllData, &()).await.unwrap();
        assert!(found.is_sound(), "{:?}", found.damage);
        assert!(same_state(
            &self.path("tree"),
            self.known.values().next_back()
        ));
    }
}

async fn pack_bytes(repo: &Repository) -> u64 {
    let packs = KeyPrefix::parse("packs/").unwrap();
    let packs = repo.backend().list_all(&packs).await.unwrap();
    packs.iter().map(|pack| pack.len).sum()
}

/// Whether the newest snapshot is of what is there now.
fn same_state(tree: &Path, state: Option<&State>) -> bool {
    state.is_some_and(|state| {
        let mut files = state.iter();
        files.all(|(name, (_, len))| fs::metadata(tree.join(name)).unwrap().len() == *len as u64)
    })
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes that do not compress; others for each seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

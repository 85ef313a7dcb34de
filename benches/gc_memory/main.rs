//! How much memory a collection takes, and how long, in repositories of up to 100 million chunks: `scripts/gc-memory`.
//! Each run is a process of its own.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod make;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backup::backup_backend::LocalFs;
use backup::{CreateOptions, Credential, GcOptions, MasterKey, OpenOptions, Repository, gc};
use backup_backend::LocalFsOptions;
use make::Maker;

const MODES: &[(&str, &str)] = &[
    ("dry", "dry run, no cache"),
    ("real", "deletes and packs anew, empty cache"),
    ("again", "nothing to do, full cache"),
];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", place, chunks] => make(Path::new(place), chunks.parse().unwrap()),
        ["gc", place, mode] => collect(Path::new(place), mode),
        ["table", place, ref sizes @ ..] => table(Path::new(place), sizes),
        _ => eprintln!("to be run by scripts/gc-memory"),
    }
}

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32].into())
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn table(place: &Path, sizes: &[&str]) {
    println!("| chunks | run | seconds | peak memory | temporary files |\n|---|---|---|---|---|");
    for size in sizes {
        let chunks: u64 = size.parse().unwrap();
        let here = place.join(size);
        fs::create_dir_all(&here).unwrap();
        run(&["make", here.to_str().unwrap(), size]);
        for (mode, name) in MODES {
            print!("| {} M | {name} ", chunks as f64 / 1e6);
            run(&["gc", here.to_str().unwrap(), mode]);
        }
        fs::remove_dir_all(&here).unwrap();
    }
}

fn run(args: &[&str]) {
    use std::io::Write;
    std::io::stdout().flush().unwrap();
    let program = std::env::current_exe().unwrap();
    assert!(Command::new(program).args(args).status().unwrap().success());
}

fn make(place: &Path, chunks: u64) {
    let start = now();
    let root = place.join("repository");
    let store = LocalFs::create(&root, LocalFsOptions::default()).unwrap();
    let creating = Repository::create(
        Arc::new(store),
        Credential::Master(master()),
        CreateOptions::default(),
    );
    let repo = runtime().block_on(creating).unwrap();
    let made = Maker::new(&root, &master(), repo.id()).make(chunks);
    eprintln!(
        "made {made:?} in {:.0} s, {} MiB",
        start.elapsed().as_secs_f64(),
        peak_memory() >> 10
    );
}

fn collect(place: &Path, mode: &str) {
    let root = place.join("repository");
    let (scratch, cache) = (place.join("scratch"), place.join("cache"));
    fs::create_dir_all(&scratch).unwrap();
    fs::create_dir_all(&cache).unwrap();
    let mut options = GcOptions::default();
    options.pack_age_min = Duration::ZERO;
    options.requests_per_second = None;
    options.dry_run = mode == "dry";
    options.scratch = Some(scratch.clone());
    options.cache = (mode != "dry").then_some(cache);
    let (start, is_done) = (now(), Arc::new(AtomicBool::new(false)));
    let watch = {
        let is_done = is_done.clone();
        std::thread::spawn(move || watch(&scratch, &is_done))
    };
    let report = runtime().block_on(async {
        let store = Arc::new(LocalFs::open(&root, LocalFsOptions::default()).unwrap());
        let master = Credential::Master(master());
        let repo = Repository::open(store, master, OpenOptions::default())
            .await
            .unwrap();
        gc(&repo, &options, &()).await.unwrap()
    });
    let seconds = start.elapsed().as_secs_f64();
    is_done.store(true, Ordering::Relaxed);
    let temporary = watch.join().unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.packs_deleted > 0, mode != "again");
    println!(
        "| {seconds:.0} | {} MiB | {} MB |",
        peak_memory() >> 10,
        temporary / 1_000_000
    );
    eprintln!("{report:?}");
}

/// The most that this process held of the scratch directory at once, in bytes: files without names.
fn watch(scratch: &Path, is_done: &AtomicBool) -> u64 {
    let mut most = 0;
    while !is_done.load(Ordering::Relaxed) {
        let mut sum = 0;
        for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let is_ours = |target: PathBuf| target.starts_with(scratch);
            if fs::read_link(entry.path()).is_ok_and(is_ours) {
                sum += fs::metadata(entry.path()).map_or(0, |found| found.len());
            }
        }
        most = sum.max(most);
        std::thread::sleep(Duration::from_millis(100));
    }
    most
}

/// The most resident memory that this process had, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.unwrap().parse().unwrap()
}

//! What each stage of a backup costs on one core, and what they make together in one process, without a disk:
//! `cargo bench --bench stages`. Whole processes beside other programs: `scripts/bench`.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;

use backup::backup_backend::Memory;
use backup::{
    BackupOptions, BackupReport, CreateOptions, Credential, Repository, RestoreOptions,
    RestoreTarget, Source, backup, restore,
};
use backup_core::{
    BlockOpener, BlockSealer, ChunkKind, Chunker, ChunkerParams, Keys, MasterKey, RepositoryId,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

/// As long as a block in a repository.
const BLOCK_LEN: usize = 3 << 20;
/// A stream long enough for some packs.
const STREAM_LEN: usize = 128 << 20;

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32].into())
}

/// Bytes that no compressor shrinks; SplitMix64.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).to_le_bytes()
    });
    words.take(len / 8).flatten().collect()
}

/// Lines like a log's, which zstd 3 shrinks to about a seventh.
fn log(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 128);
    for (line, random) in noise(len).chunks_exact(8).enumerate() {
        let [host, worker, a, b, c, ms, ..] = *random else {
            break;
        };
        let (minute, second) = (line / 60 % 60, line % 60);
        let text = format!(
            "2026-11-21T10:{minute:02}:{second:02}Z host{host} worker[{worker}]: request {a:02x}{b:02x}{c:02x} took {ms} ms\n"
        );
        bytes.extend_from_slice(text.as_bytes());
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}

fn contents(len: usize) -> [(&'static str, Vec<u8>); 2] {
    [("noise", noise(len)), ("log", log(len))]
}

fn cut_and_name(criterion: &mut Criterion) {
    let keys = Keys::all(&master());
    let chunker = Chunker::new(ChunkerParams::DEFAULT, &keys).unwrap();
    let content = noise(32 << 20);
    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("cut", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&content[..]);
            while let Some(len) = chunker.cut(rest, true) {
                rest = &rest[len..];
            }
        });
    });
    group.bench_function("chunk id", |bencher| {
        bencher.iter(|| {
            for chunk in black_box(&content).chunks(64 << 10) {
                black_box(keys.chunk_id(ChunkKind::Data, chunk));
            }
        });
    });
    group.finish();
}

fn seal_and_open(criterion: &mut Criterion) {
    let keys = Keys::all(&master());
    let repository = RepositoryId::from_bytes([1; 16]);
    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Bytes(BLOCK_LEN as u64));
    for (name, content) in contents(BLOCK_LEN) {
        // Level 0 stores as it is; 3 is what a repository takes by default.
        for level in [0, 3] {
            let mut sealer = BlockSealer::new(repository, level).unwrap();
            let mut record = Vec::new();
            let parameter = format!("{name}, level {level}");
            group.bench_function(BenchmarkId::new("seal", &parameter), |bencher| {
                bencher.iter(|| {
                    record.clear();
                    let content = black_box(&content);
                    sealer.seal(&keys, ChunkKind::Data, content, &mut record)
                });
            });
            let mut opener = BlockOpener::new(repository).unwrap();
            group.bench_function(BenchmarkId::new("open", &parameter), |bencher| {
                let len = BLOCK_LEN as u32;
                bencher.iter(|| opener.open(&keys, ChunkKind::Data, black_box(&record), len));
            });
        }
    }
    group.finish();
}

/// An empty repository in memory.
async fn repository() -> Repository {
    let (store, credential) = (Arc::new(Memory::new()), Credential::Master(master()));
    let created = Repository::create(store, credential, CreateOptions::default()).await;
    created.unwrap()
}

async fn back_up(repo: &Repository, content: &Arc<[u8]>) -> BackupReport {
    let source = Source::stream(Cursor::new(content.clone()));
    let report = backup(repo, "stream", source, &BackupOptions::default(), &()).await;
    report.unwrap()
}

/// All cores, one stream, no disk: what is lost between the stages shows here.
fn back_up_and_restore(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("stream in memory");
    group.throughput(Throughput::Bytes(STREAM_LEN as u64));
    group.sample_size(10);
    for (name, content) in contents(STREAM_LEN) {
        let content: Arc<[u8]> = content.into();
        group.bench_function(BenchmarkId::new("backup", name), |bencher| {
            bencher
                .iter(|| runtime.block_on(async { back_up(&repository().await, &content).await }));
        });
        let repo = runtime.block_on(repository());
        let first = runtime.block_on(back_up(&repo, &content));
        group.bench_function(BenchmarkId::new("restore", name), |bencher| {
            bencher.iter(|| {
                let target = RestoreTarget::Writer(Box::new(std::io::sink()));
                let options = RestoreOptions::default();
                let restored = restore(&repo, &first.snapshot, target, &options, &());
                runtime.block_on(restored).unwrap()
            });
        });
        // Last, as each adds a snapshot to the repository.
        group.bench_function(BenchmarkId::new("backup again", name), |bencher| {
            bencher.iter(|| runtime.block_on(back_up(&repo, &content)));
        });
    }
    group.finish();
}

criterion_group!(benches, cut_and_name, seal_and_open, back_up_and_restore);
criterion_main!(benches);

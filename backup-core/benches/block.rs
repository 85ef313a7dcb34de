//! How fast a block is cut, named, sealed and opened, on one core: `cargo bench -p backup-core`.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use backup_core::{
    BlockOpener, BlockSealer, ChunkKind, Chunker, ChunkerParams, Keys, MasterKey, RepositoryId,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BLOCK_LEN: usize = 1 << 20;

/// Bytes that no compressor shrinks: a BLAKE3 stream.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines like a log's, which zstd 3 shrinks to about a seventh.
fn log(len: usize) -> Vec<u8> {
    let noise = noise(len);
    let mut bytes = Vec::with_capacity(len + 128);
    for (line, random) in noise.chunks_exact(8).enumerate() {
        let text = format!(
            "2026-11-21T10:{:02}:{:02}Z host{} worker[{}]: request {:02x}{:02x}{:02x} took {} ms\n",
            line / 60 % 60,
            line % 60,
            random[0] % 16,
            random[1],
            random[2],
            random[3],
            random[4],
            random[5],
        );
        bytes.extend_from_slice(text.as_bytes());
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}

fn cut_and_name(criterion: &mut Criterion) {
    let keys = Keys::all(&MasterKey::from_bytes([7; 32].into()));
    let content = noise(64 << 20);
    let mut group = criterion.benchmark_group("cut and name");
    group.throughput(Throughput::Bytes(content.len() as u64));
    for (name, params) in [
        ("16/64/256 KiB", ChunkerParams::DEFAULT),
        (
            "4/16/64 KiB",
            ChunkerParams::new(4 << 10, 16 << 10, 64 << 10).unwrap(),
        ),
    ] {
        let chunker = Chunker::new(params, &keys).unwrap();
        group.bench_function(BenchmarkId::new("cut", name), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&content[..]);
                while let Some(len) = chunker.cut(rest, true) {
                    rest = &rest[len..];
                }
            });
        });
    }
    group.bench_function("chunk id of 64 KiB", |bencher| {
        bencher.iter(|| {
            for chunk in black_box(&content).chunks(64 << 10) {
                black_box(keys.chunk_id(ChunkKind::Data, chunk));
            }
        });
    });
    group.finish();
}

fn seal_and_open(criterion: &mut Criterion) {
    let keys = Keys::all(&MasterKey::from_bytes([7; 32].into()));
    let repository = RepositoryId::from_bytes([1; 16]);
    let mut group = criterion.benchmark_group("1 MiB block");
    group.throughput(Throughput::Bytes(BLOCK_LEN as u64));
    for (name, content, level) in [
        ("stored", noise(BLOCK_LEN), 0),
        ("noise, zstd 3", noise(BLOCK_LEN), 3),
        ("log, zstd 3", log(BLOCK_LEN), 3),
    ] {
        let mut sealer = BlockSealer::new(repository, level).unwrap();
        let mut record = Vec::new();
        group.bench_function(BenchmarkId::new("seal", name), |bencher| {
            bencher.iter(|| {
                record.clear();
                sealer
                    .seal(&keys, ChunkKind::Data, black_box(&content), &mut record)
                    .unwrap()
            });
        });
        let mut opener = BlockOpener::new(repository).unwrap();
        group.bench_function(BenchmarkId::new("open", name), |bencher| {
            bencher.iter(|| {
                opener
                    .open(&keys, ChunkKind::Data, black_box(&record), BLOCK_LEN as u32)
                    .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, cut_and_name, seal_and_open);
criterion_main!(benches);

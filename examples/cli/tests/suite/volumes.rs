use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::program::{Output, Scratch, noise};

#[test]
fn a_stream_goes_through_pipes_both_ways() {
    let scratch = Scratch::with_repository();
    let bytes = noise(5 << 20, 2);
    let mut command = scratch.command(["backup", "--name", "dump", "-", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let made: serde_json::Value =
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(made["snapshots"][0]["kind"], "stream");
    assert_eq!(made["snapshots"][0]["bytes"], 5 << 20);

    let back = scratch
        .run(["restore", "latest:dump", "-", "--quiet"])
        .expect(0);
    assert!(back.stdout == bytes);
    assert_eq!(back.stderr, "");
    let part = scratch
        .run(["restore", "latest:dump", "-", "--range", "1M..2M", "--json"])
        .expect(0);
    assert!(part.stdout == bytes[1 << 20..2 << 20]);
    let document: serde_json::Value = serde_json::from_str(&part.stderr).unwrap();
    assert_eq!(document["bytes"], 1 << 20);
    let end = scratch
        .run(["restore", "latest:dump", "-", "--range", "5000000.."])
        .expect(0);
    assert!(end.stdout == bytes[5_000_000..]);
    let beyond = scratch
        .run(["restore", "latest:dump", "-", "--range", "1..1G", "--json"])
        .expect(1);
    assert_eq!(beyond.error_kind(), "bad_option");
}

#[test]
fn an_image_comes_back_with_its_holes() {
    let scratch = Scratch::with_repository();
    let image = scratch.path("image");
    let mut file = File::create(&image).unwrap();
    file.write_all(&noise(1 << 20, 3)).unwrap();
    file.seek(SeekFrom::Start(64 << 20)).unwrap();
    file.write_all(&noise(1 << 20, 4)).unwrap();
    file.set_len(128 << 20).unwrap();

    let made = scratch.run(["backup", "image", "--json"]).expect(0).json();
    assert_eq!(made["snapshots"][0]["kind"], "volume");
    assert_eq!(made["snapshots"][0]["bytes"], 128 << 20);
    scratch.run(["restore", "latest", "restored"]).expect(0);
    assert!(fs::read(&image).unwrap() == fs::read(scratch.path("restored")).unwrap());
    let blocks = fs::metadata(scratch.path("restored")).unwrap().blocks();
    assert!(
        blocks * 512 < 16 << 20,
        "{blocks} blocks: holes were filled"
    );
}

#[test]
fn a_volume_is_not_put_over_something() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("image"), "new").unwrap();
    fs::write(scratch.path("precious"), "old").unwrap();
    scratch.run(["backup", "image"]).expect(0);
    let kind = |output: Output| output.expect(1).error_kind();
    assert_eq!(
        kind(scratch.run(["restore", "latest", "precious", "--json"])),
        "target_not_empty"
    );
    assert_eq!(
        kind(scratch.run(["restore", "latest", ".", "--json"])),
        "unsuitable_target"
    );
    assert_eq!(fs::read(scratch.path("precious")).unwrap(), b"old");
    scratch
        .run(["restore", "latest", "precious", "--into-existing"])
        .expect(0);
    assert_eq!(fs::read(scratch.path("precious")).unwrap(), b"new");
}

#[test]
fn what_is_neither_file_nor_directory_is_refused() {
    let scratch = Scratch::with_repository();
    let refused = scratch.run(["backup", "/dev/null", "--json"]).expect(1);
    assert_eq!(refused.error_kind(), "unsuitable_source");
}

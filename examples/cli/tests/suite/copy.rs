use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::program::{Output, Scratch, assert_same, files};

/// A repository with a snapshot of a tree, and another one that a passphrase opens.
fn two_repositories() -> (Scratch, PathBuf) {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    scratch
        .run(["backup", "tree", "--name", "home", "--tag", "first"])
        .expect(0);
    fs::write(scratch.path("passphrase"), "correct horse\n").unwrap();
    let mut init = scratch.bare();
    let init = init.args(["init", "--repo", "other", "--passphrase-file", "passphrase"]);
    Output::of(init).expect(0);
    (scratch, tree)
}

const TO_OTHER: [&str; 5] = [
    "copy",
    "--to",
    "other",
    "--to-passphrase-file",
    "passphrase",
];

#[test]
fn snapshots_are_copied_under_another_passphrase() {
    let (scratch, tree) = two_repositories();
    let copied = scratch.run(TO_OTHER).expect(0).text();
    assert!(copied.contains(" copied as "), "{copied}");
    assert!(
        copied.contains("1 snapshot copied, 0 there already"),
        "{copied}"
    );

    let mut again = scratch.command(["copy", "--json", "--tag", "first"]);
    again.env("BACKUP_TO_REPOSITORY", "other");
    again.env("BACKUP_TO_PASSPHRASE", "correct horse");
    let again = Output::of(&mut again).expect(0).json();
    assert_eq!(again["copied"].as_array().unwrap().len(), 0);
    assert_eq!(again["present"].as_array().unwrap().len(), 1);
    assert_eq!(again["bytes_read"], 0);
    assert_eq!(again["requests"]["put"], 0);
    let copy = again["present"][0]["copy"].as_str().unwrap();

    let mut restore = scratch.bare();
    restore.args(["restore", copy, "restored", "--repo", "other"]);
    restore.args(["--passphrase-file", "passphrase"]);
    Output::of(&mut restore).expect(0);
    assert_same(&tree, &scratch.path("restored"));
    // The secret of the one repository is not tried on the other.
    let wrong = [
        "copy",
        "--json",
        "--to",
        "other",
        "--to-passphrase-command",
        "echo wrong",
    ];
    assert_eq!(scratch.run(wrong).expect(1).error_kind(), "wrong_secret");
    for usage in [
        &["copy"][..],
        &["copy", "latest", "--to", "other", "--source", "home"],
        &[
            "copy",
            "--to",
            "other",
            "--to-key-file",
            "k",
            "--to-passphrase-file",
            "p",
        ],
    ] {
        scratch.run(usage).expect(2);
    }
}

#[test]
fn a_snapshot_that_cannot_be_copied_is_named() {
    let (scratch, _) = two_repositories();
    scratch.run(["backup", "key", "--name", "sound"]).expect(0);
    let packs = files(&scratch.path("repo/packs"));
    let len = |pack: &&PathBuf| fs::metadata(pack).unwrap().len();
    let pack = packs.iter().max_by_key(len).unwrap();
    fs::set_permissions(pack, PermissionsExt::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, &bytes).unwrap();

    let partial = scratch.run(TO_OTHER).expect(3).text();
    assert!(partial.contains("not copied: snapshot "), "{partial}");
    assert!(partial.contains("1 snapshot copied"), "{partial}");
    let partial = scratch.run(TO_OTHER.iter().chain(&["--json"])).expect(3);
    let partial = partial.json();
    assert_eq!(partial["complete"], false);
    let reason = partial["failed"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("content of "), "{reason}");
    assert_eq!(partial["present"].as_array().unwrap().len(), 1);
}

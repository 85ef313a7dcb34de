use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Output, Scratch};

#[test]
fn slots_are_added_and_taken_away() {
    let scratch = Scratch::new();
    fs::write(scratch.path("passphrase"), "correct horse\n").unwrap();
    let with = |arguments: &[&str]| Output::of(scratch.bare().args(arguments));
    with(&[
        "init",
        "--passphrase-file",
        "passphrase",
        "--label",
        "alice",
    ])
    .expect(0);

    let wrong = with(&["snapshots", "--json", "--passphrase-command", "echo wrong"]).expect(1);
    assert_eq!(wrong.error_kind(), "wrong_secret");
    let failed = with(&["snapshots", "--json", "--passphrase-command", "exit 7"]).expect(1);
    assert_eq!(failed.error_kind(), "passphrase_command");
    let nobody = with(&["snapshots", "--json", "--passphrase-command", "true"]).expect(1);
    assert_eq!(nobody.error_kind(), "empty_passphrase");

    let environment = Output::of(
        scratch
            .bare()
            .env("BACKUP_PASSPHRASE", "correct horse")
            .args(["key", "list"]),
    );
    assert!(environment.expect(0).text().contains("alice"));
    let added = [
        "key",
        "add",
        "--passphrase-command",
        "cat passphrase",
        "--new-key-file",
        "key",
        "--json",
    ];
    let added = with(&added).expect(0).json();
    assert_eq!(added["key_file_created"], true);

    // From here on with the key.
    let keys = scratch.run(["key", "list", "--json"]).expect(0).json();
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    let old = keys
        .iter()
        .find(|slot| slot["kind"] == "passphrase")
        .unwrap()["slot"]
        .as_str()
        .unwrap();
    let new = keys.iter().find(|slot| slot["kind"] == "key").unwrap()["slot"]
        .as_str()
        .unwrap();
    assert_eq!(added["slot"], new);

    let ambiguous = scratch.run(["key", "remove", "", "--json"]).expect(1);
    assert_eq!(ambiguous.error_kind(), "slot_not_found");
    scratch.run(["key", "remove", &old[..8]]).expect(0);
    let gone = with(&["snapshots", "--passphrase-file", "passphrase", "--json"]).expect(1);
    assert_eq!(gone.error_kind(), "wrong_secret");
    let last = scratch.run(["key", "remove", new, "--json"]).expect(1);
    assert_eq!(last.error_kind(), "bad_option");
    scratch.run(["snapshots"]).expect(0);
}

#[test]
fn key_files_must_be_secret_and_keys() {
    let scratch = Scratch::with_repository();
    fs::set_permissions(scratch.path("key"), PermissionsExt::from_mode(0o640)).unwrap();
    let exposed = scratch.run(["snapshots", "--json"]).expect(1);
    assert_eq!(exposed.error_kind(), "key_file_exposed");
    fs::set_permissions(scratch.path("key"), PermissionsExt::from_mode(0o400)).unwrap();
    scratch.run(["snapshots"]).expect(0);

    scratch.run(["key", "generate", "other"]).expect(0);
    let other = scratch
        .run(["snapshots", "--key-file", "other", "--json"])
        .expect(1);
    assert_eq!(other.error_kind(), "wrong_secret");
    let kept = fs::read(scratch.path("other")).unwrap();
    let again = scratch
        .run(["key", "generate", "other", "--json"])
        .expect(1);
    assert_eq!(again.error_kind(), "key_file_not_written");
    assert_eq!(fs::read(scratch.path("other")).unwrap(), kept);

    fs::write(scratch.path("other"), "no key").unwrap();
    let not_a_key = scratch
        .run(["snapshots", "--key-file", "other", "--json"])
        .expect(1);
    assert_eq!(not_a_key.error_kind(), "not_a_key");
    let missing = scratch
        .run(["snapshots", "--key-file", "nobody", "--json"])
        .expect(1);
    assert_eq!(missing.error_kind(), "unreadable");
}

#[test]
fn the_32_bytes_themselves_open_too() {
    let scratch = Scratch::with_repository();
    let digits = fs::read_to_string(scratch.path("key")).unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    fs::write(scratch.path("raw"), (0..32).map(byte).collect::<Vec<u8>>()).unwrap();
    fs::set_permissions(scratch.path("raw"), PermissionsExt::from_mode(0o600)).unwrap();
    scratch.run(["snapshots", "--key-file", "raw"]).expect(0);
}

use std::fs;

use crate::program::{Output, Scratch};

#[test]
fn wrong_usage_is_status_2() {
    let scratch = Scratch::with_repository();
    let wrong = |arguments: &[&str]| scratch.run(arguments).expect(2);
    wrong(&["frobnicate"]);
    wrong(&["backup"]);
    wrong(&["backup", "-"]);
    wrong(&["backup", "a", "b", "--name", "n"]);
    wrong(&["backup", ".", "--zstd-level", "23"]);
    wrong(&["backup", ".", "--memory", "much"]);
    wrong(&["backup", ".", "--beat", "0s"]);
    wrong(&["verify", "--data", "--sample", "3"]);
    wrong(&["snapshots", "--key-file", "k", "--passphrase-file", "p"]);
    wrong(&["restore", "latest", "x", "--range", "9..1"]);
    wrong(&["forget"]);
    wrong(&["forget", "--dry-run", "--source", "home"]);
    wrong(&["forget", "latest", "--keep-last", "1"]);
    wrong(&["forget", "--policy", "file", "--keep-last", "1"]);
    wrong(&["forget", "--keep-within", "1m"]);
    wrong(&["forget", "--keep-last", "1", "--max-forget-percent", "101"]);
    wrong(&["unforget"]);
    wrong(&["gc", "--repack-dead-percent", "0"]);
    wrong(&["gc", "--no-repack", "--repack-max", "1G"]);
    wrong(&["gc", "--undelete-window", "7"]);
    let nowhere = Output::of(
        scratch
            .bare()
            .env_remove("BACKUP_REPOSITORY")
            .arg("snapshots"),
    )
    .expect(2);
    assert!(nowhere.stderr.contains("--repo"), "{}", nowhere.stderr);
}

#[test]
fn places_that_hold_no_repository_are_told_apart() {
    let scratch = Scratch::new();
    let kind = |arguments: &[&str]| {
        scratch
            .run(["--json"].iter().chain(arguments))
            .expect(1)
            .error_kind()
    };
    assert_eq!(kind(&["snapshots"]), "store_no_such_bucket");
    fs::create_dir(scratch.path("repo")).unwrap();
    assert_eq!(kind(&["snapshots"]), "not_a_repository");
    assert_eq!(
        kind(&["snapshots", "--repo", "ftp://bucket/prefix"]),
        "unknown_scheme"
    );
}

#[test]
fn errors_say_what_to_do_and_repeat_nothing() {
    let scratch = Scratch::new();
    let failed = scratch.run(["snapshots"]).expect(1);
    assert!(failed.stderr.starts_with("error: "), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("hint: make a repository with"),
        "{}",
        failed.stderr
    );
    let mut lines: Vec<&str> = failed.stderr.lines().collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count, "{}", failed.stderr);
    assert_eq!(failed.text(), "");
}

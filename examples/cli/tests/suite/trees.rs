use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Output, Scratch, assert_same, names};

#[test]
fn init_makes_a_key_file_and_says_so() {
    let scratch = Scratch::new();
    let made = scratch.run(["init"]).expect(0);
    assert!(made.text().contains("made key file"), "{}", made.text());
    assert_eq!(
        fs::metadata(scratch.path("key")).unwrap().mode() & 0o7777,
        0o600
    );
    let key = fs::read_to_string(scratch.path("key")).unwrap();
    assert_eq!(key.len(), 65, "64 digits and the end of the line");

    // A second one changes nothing, neither the repository nor the key.
    let again = scratch.run(["init", "--json"]).expect(1);
    assert_eq!(again.error_kind(), "repository_exists");
    assert_eq!(fs::read_to_string(scratch.path("key")).unwrap(), key);
}

#[test]
fn init_leaves_directories_of_others_alone() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("repo")).unwrap();
    fs::write(scratch.path("repo/thesis"), "mine").unwrap();
    let refused = scratch.run(["init", "--json"]).expect(1);
    assert_eq!(refused.error_kind(), "place_taken");
    assert_eq!(names(&scratch.path("repo")), ["thesis"]);
    assert!(!scratch.path("key").exists(), "no key is made for nothing");
}

#[test]
fn a_tree_goes_there_and_back() {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    let first = scratch
        .run(["backup", "tree", "--tag", "one", "--host", "here", "--json"])
        .expect(0)
        .json();
    let first = &first["snapshots"][0];
    assert_eq!(first["complete"], true);
    assert_eq!(first["kind"], "tree");
    assert_eq!(first["name"], format!("here:{}", tree.display()));
    assert_eq!(first["files"], 5);

    let second = scratch
        .run(["backup", "tree", "--host", "here", "--json"])
        .expect(0)
        .json();
    let second = &second["snapshots"][0];
    assert_eq!(second["previous"], first["snapshot"]);
    assert_eq!(second["files_unchanged"], second["files"]);
    assert_eq!(second["bytes_read"], 0);

    scratch.run(["restore", "latest", "restored"]).expect(0);
    assert_same(&tree, &scratch.path("restored"));

    let verified = scratch.run(["verify", "--data", "--json"]).expect(0).json();
    assert_eq!(verified["sound"], true);
    assert_eq!(verified["snapshots"], 2);
    let stats = scratch.run(["stats", "--json"]).expect(0).json();
    assert_eq!(stats["snapshots"], 2);
    assert_eq!(stats["sources"], 1);
    assert!(stats["bytes"].as_u64() > Some(3 << 20), "{stats}");
}

#[test]
fn snapshots_are_listed_and_filtered() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch
        .run(["backup", "tree", "--name", "a", "--tag", "x", "--tag", "y"])
        .expect(0);
    scratch
        .run([
            "backup",
            "tree",
            "--name",
            "b\u{1b}[31m",
            "--tag",
            "x",
            "--host",
            "there",
        ])
        .expect(0);

    let sources = |arguments: &[&str]| {
        let all = scratch
            .run(["snapshots", "--json"].iter().chain(arguments))
            .expect(0)
            .json();
        let names = all["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["name"].clone());
        names.collect::<Vec<Value>>()
    };
    assert_eq!(sources(&[]), ["a", "b\u{1b}[31m"]);
    assert_eq!(sources(&["--tag", "x", "--tag", "y"]), ["a"]);
    assert_eq!(sources(&["--source", "a"]), ["a"]);
    assert_eq!(sources(&["--host", "there"]), ["b\u{1b}[31m"]);
    let shown = scratch.run(["snapshots"]).expect(0).text();
    assert!(
        !shown.contains('\u{1b}'),
        "a terminal must not obey names: {shown:?}"
    );

    // The short name in the table names the snapshot.
    let short = shown.lines().nth(1).unwrap().split(' ').next().unwrap();
    scratch.run(["ls", short]).expect(0);
    scratch.run(["ls", "latest:a"]).expect(0);
    let unknown = scratch.run(["ls", "latest:nobody", "--json"]).expect(1);
    assert_eq!(unknown.error_kind(), "snapshot_not_found");
}

#[test]
fn ls_shows_items_and_hides_control_characters() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    let all = scratch.run(["ls", "latest"]).expect(0).text();
    assert!(
        all.lines().any(|line| line == "bell\\x07\\x0aname"),
        "{all}"
    );
    assert!(all.lines().any(|line| line == "not-utf8-\\xff"), "{all}");
    let long = scratch
        .run(["ls", "-l", "latest", "sub/letter"])
        .expect(0)
        .text();
    assert!(
        long.starts_with("-rw-r-----") && long.contains(" 4 "),
        "{long}"
    );

    let below = scratch
        .run(["ls", "--json", "latest", "/sub/"])
        .expect(0)
        .text();
    let below: Vec<Value> = below
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |path: &str| below.iter().find(|item| item["path"] == path).unwrap();
    assert_eq!(below.len(), 7);
    assert_eq!(of("sub/link")["target"], "../nowhere");
    assert_eq!(of("sub/letter-too")["type"], "hardlink");
    assert_eq!(of("sub/deep/large")["size"], 3 << 20);
    let missing = scratch
        .run(["ls", "--json", "latest", "sub/nobody"])
        .expect(1);
    assert_eq!(missing.error_kind(), "path_not_found");
}

#[test]
fn a_reader_that_goes_away_causes_no_panic() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    let mut command = scratch.command(["ls", "latest"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn parts_are_restored_and_targets_protected() {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    scratch
        .run(["restore", "latest", "part", "--path", "sub/deep"])
        .expect(0);
    assert_eq!(names(&scratch.path("part/sub")), ["deep"]);
    assert_same(&tree.join("sub/deep"), &scratch.path("part/sub/deep"));

    let taken = scratch
        .run(["restore", "latest", "part", "--json"])
        .expect(1);
    assert_eq!(taken.error_kind(), "target_not_empty");
    scratch
        .run(["restore", "latest", "part", "--into-existing"])
        .expect(0);
    assert_same(&tree, &scratch.path("part"));

    let one = scratch
        .run([
            "restore",
            "latest",
            "-",
            "--path",
            "sub/letter",
            "--range",
            "1..",
        ])
        .expect(0);
    assert_eq!(one.text(), "ear");
    assert!(
        one.stderr.contains("restored"),
        "the summary keeps out of the data: {}",
        one.stderr
    );
    let missing = scratch
        .run(["restore", "latest", "none", "--path", "nobody", "--json"])
        .expect(1);
    assert_eq!(missing.error_kind(), "path_not_found");
}

#[test]
fn what_is_excluded_stays_out() {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    fs::create_dir(tree.join("cache")).unwrap();
    fs::write(
        tree.join("cache/CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55\n",
    )
    .unwrap();
    for name in ["a.log", "b.log", "sub/c.log"] {
        fs::write(tree.join(name), "x").unwrap();
    }
    fs::write(scratch.path("patterns"), "# logs\n*.log\n/sub/deep/\n").unwrap();
    let arguments = [
        "backup",
        "tree",
        "--exclude-file",
        "patterns",
        "--exclude",
        "!a.log",
        "--exclude-caches",
    ];
    scratch.run(arguments).expect(0);
    let kept = scratch.run(["ls", "latest"]).expect(0).text();
    let has = |path: &str| kept.lines().any(|line| line == path);
    assert!(has("a.log") && has("sub/letter"), "{kept}");
    assert!(
        !has("b.log") && !has("sub/c.log") && !has("sub/deep") && !has("cache"),
        "{kept}"
    );

    let bad = scratch
        .run(["backup", "tree", "--exclude", "[z-a]", "--json"])
        .expect(1);
    assert_eq!(bad.error_kind(), "bad_pattern");
}

#[test]
fn a_repository_within_its_source_is_left_out() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "."]).expect(0);
    let kept = scratch.run(["ls", "latest"]).expect(0).text();
    assert!(kept.contains("tree/sub/letter"), "{kept}");
    assert!(!kept.lines().any(|line| line.starts_with("repo")), "{kept}");
}

#[test]
fn several_paths_are_several_snapshots() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    fs::write(scratch.path("volume"), "bytes").unwrap();
    let made = scratch
        .run(["backup", "tree", "volume", "--json"])
        .expect(0)
        .json();
    assert_eq!(made["snapshots"][0]["kind"], "tree");
    assert_eq!(made["snapshots"][1]["kind"], "volume");
    // Nothing is begun when a path is not there.
    let missing = scratch
        .run(["backup", "tree", "nobody", "--json"])
        .expect(1);
    assert_eq!(missing.error_kind(), "unreadable");
    let all = scratch.run(["snapshots", "--json"]).expect(0).json();
    assert_eq!(all["snapshots"].as_array().unwrap().len(), 2);
}

/// As root nothing is unreadable, so the program runs as somebody else then.
#[test]
fn unreadable_files_make_a_partial_backup() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;

    let scratch = Scratch::new();
    let tree = scratch.make_tree("tree");
    fs::set_permissions(tree.join("sub/nothing"), PermissionsExt::from_mode(0o000)).unwrap();
    let is_root = fs::metadata(&tree).unwrap().uid() == 0;
    let program = scratch.path("program");
    fs::copy(env!("CARGO_BIN_EXE_backup"), &program).unwrap();
    if is_root {
        give_away(&scratch.path("."), NOBODY);
    }
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .current_dir(scratch.path("."))
            .args(["--repo", "repo", "--key-file", "key"])
            .args(arguments);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Output::of(&mut command)
    };
    run(&["init"]).expect(0);
    let partial = run(&["backup", "tree"]).expect(3);
    assert!(
        partial.stderr.contains("skipped: sub/nothing: "),
        "{}",
        partial.stderr
    );
    assert!(
        partial.text().contains("not complete: "),
        "{}",
        partial.text()
    );
    let partial = run(&["backup", "tree", "--json"]).expect(3).json();
    assert_eq!(partial["snapshots"][0]["complete"], false);
    let skipped = partial["snapshots"][0]["skipped"]
        .as_array()
        .unwrap()
        .clone();
    assert!(
        skipped.iter().any(|item| item["path"] == "sub/nothing"),
        "{skipped:?}"
    );
    // What could be read is there.
    run(&["restore", "latest", "restored"]).expect(0);
    assert_eq!(
        fs::metadata(scratch.path("restored/sub/deep/large"))
            .unwrap()
            .len(),
        3 << 20
    );
    let demo = run(&["demo", "tree", "--dir", ".", "--json"])
        .expect(3)
        .json();
    assert_eq!(demo["compared"]["differences_count"], 0, "{demo}");
}

fn give_away(path: &std::path::Path, to: u32) {
    std::os::unix::fs::lchown(path, Some(to), Some(to)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for name in names(path) {
            give_away(&path.join(name), to);
        }
    }
}

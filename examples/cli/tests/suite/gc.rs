use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::forget::{back_up, listed};
use crate::program::{Scratch, assert_same, files, noise};

/// Collects without waiting for anything.
const AT_ONCE: [&str; 5] = ["gc", "--pack-age-min", "0s", "--undelete-window", "0s"];

fn at_once<'a>(more: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    AT_ONCE.iter().chain(more).copied()
}

fn bytes_below(scratch: &Scratch, name: &str) -> u64 {
    let files = files(&scratch.path(name)).into_iter();
    files.map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[test]
fn what_was_forgotten_goes_and_the_rest_is_whole() {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    fs::write(tree.join("sub/deep/old"), noise(4 << 20, 7)).unwrap();
    scratch.run(["backup", "tree"]).expect(0);
    fs::remove_file(tree.join("sub/deep/old")).unwrap();
    scratch.run(["backup", "tree"]).expect(0);
    scratch.run(["forget", "--keep-last", "1"]).expect(0);

    let before = bytes_below(&scratch, "repo");
    let left = scratch.run(["gc"]).expect(0).text();
    assert!(left.contains("deleted 0 packs"), "{left}");
    let lately = "left: 1 snapshot given up less than 7d ago (--undelete-window), which `backup unforget` brings back, until 2";
    assert!(left.contains(lately), "{left}");
    let dropped = ["gc", "--undelete-window", "0s"];
    let young = scratch.run(dropped).expect(0).text();
    assert!(young.contains("dropped for good 1 snapshot: "), "{young}");
    assert!(
        young.contains("younger than 24h (--pack-age-min)"),
        "{young}"
    );

    let report = scratch.run(at_once(&["--json"])).expect(0).json();
    assert_eq!(report["complete"], true);
    assert!(report["packs_deleted"].as_u64().unwrap() > 0, "{report}");
    assert!(report["requests"]["delete"].as_u64().unwrap() > 0);
    let after = bytes_below(&scratch, "repo");
    assert!(after + (3 << 20) < before, "{before} bytes became {after}");
    scratch.run(["restore", "latest", "restored"]).expect(0);
    assert_same(&tree, &scratch.path("restored"));
    scratch.run(["verify", "--data"]).expect(0);
    let again = scratch.run(at_once(&["--json"])).expect(0).json();
    assert_eq!(
        (&again["round"], &again["packs_deleted"]),
        (&json!(null), &json!(0))
    );
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_go() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    back_up(&scratch, "home", 2);
    scratch.run(["forget", &first]).expect(0);
    let before = files(&scratch.path("repo"));
    let would = scratch.run(at_once(&["--dry-run", "--json"]));
    let would = would.expect(0).json();
    assert_eq!(files(&scratch.path("repo")), before);
    assert_eq!(would["snapshots_dropped"], json!([first]));
    scratch.run(["unforget", &first]).expect(0);
    scratch.run(["forget", &first]).expect(0);
    let done = scratch.run(at_once(&["--json"])).expect(0).json();
    for field in ["packs_deleted", "bytes_freed", "snapshots_dropped"] {
        assert_eq!(would[field], done[field], "{field}");
    }
    let late = scratch.run(["unforget", &first, "--json"]).expect(1);
    assert_eq!(late.error_kind(), "snapshot_dropped");
}

#[test]
fn much_at_once_is_refused_until_it_is_allowed() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    back_up(&scratch, "home", 2);
    scratch.run(["forget", &first]).expect(0);
    let before = bytes_below(&scratch, "repo/packs");
    let refused = scratch.run(at_once(&["--max-delete-percent", "10"]));
    let refused = refused.expect(1).stderr;
    assert!(refused.contains("nothing was deleted: "), "{refused}");
    assert!(refused.contains("--max-delete-percent allows"), "{refused}");
    assert_eq!(bytes_below(&scratch, "repo/packs"), before);
    scratch.run(["unforget", &first]).expect(0);
    scratch.run(["forget", &first]).expect(0);
    let percent = ["--max-delete-percent", "10", "--force"];
    scratch.run(at_once(&percent)).expect(0);
    assert!(bytes_below(&scratch, "repo/packs") < before);
}

#[test]
fn packs_that_cannot_be_read_are_named_and_the_status_is_3() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    let packs = files(&scratch.path("repo/packs"));
    back_up(&scratch, "home", 2);
    scratch.run(["forget", &first]).expect(0);
    // So few packs stand in no segment: their own directories tell what is in them.
    assert!(!scratch.path("repo/index").exists());
    for pack in packs {
        fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).unwrap();
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let partly = scratch.run(at_once(&[])).expect(3).text();
    assert!(
        partly.contains("not readable, and left: packs/"),
        "{partly}"
    );
    assert_eq!(listed(&scratch, &[]).len(), 1);
}

#[test]
fn what_was_marked_is_kept_for_its_owner_only() {
    let scratch = Scratch::with_repository();
    back_up(&scratch, "home", 1);
    scratch.run(["gc", "--no-cache"]).expect(0);
    assert!(!scratch.path("cache").exists());
    scratch.run(["gc"]).expect(0);
    let cache = scratch.path("cache/backup");
    assert_eq!(
        fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(files(&cache).len(), 1);
    scratch.run(["gc", "--cache-dir", "elsewhere"]).expect(0);
    assert_eq!(files(&scratch.path("elsewhere")).len(), 1);
    let taken = scratch
        .run(["gc", "--cache-dir", "key", "--json"])
        .expect(1);
    assert_eq!(taken.error_kind(), "cache_directory");
}

/// A backup that died has left its session behind: it is waited for, and given up when its lease is over.
#[test]
fn waiting_for_a_session_stops_at_a_signal_and_ends_with_its_lease() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    back_up(&scratch, "home", 2);
    scratch.run(["forget", &first]).expect(0);
    let mut command = scratch.command(["backup", "--name", "dump", "-"]);
    let mut backup = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = backup.stdin.take().unwrap();
    // More than fits the pipe: when it is written, the backup reads.
    stdin.write_all(&noise(9 << 20, 6)).unwrap();
    backup.kill().unwrap();
    backup.wait().unwrap();

    let mut command = scratch.command(at_once(&[]));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut gc = command.spawn().unwrap();
    let mut stderr = BufReader::new(gc.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.starts_with("waiting for session "), "{said}");
    kill_process(Pid::from_child(&gc), Signal::INT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(gc.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("stopped as asked"), "{said}");

    let done = scratch.run(at_once(&["--lease", "0s"])).expect(0).text();
    let waited = "waited for 1 session; given up, having shown no sign of life (--lease): 1";
    assert!(done.contains(waited), "{done}");
    scratch.run(["verify", "--data"]).expect(0);
}

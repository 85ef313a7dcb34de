use std::fs;

use serde_json::json;

use crate::program::{Scratch, noise};

/// Backs a file up as a volume of this source, with content of its own, and returns the snapshot's id.
pub(crate) fn back_up(scratch: &Scratch, source: &str, seed: u64) -> String {
    let file = scratch.path("volume");
    fs::write(&file, noise(2 << 20, seed)).unwrap();
    let made = scratch
        .run(["backup", "volume", "--name", source, "--json"])
        .expect(0)
        .json();
    let id = made["snapshots"][0]["snapshot"].as_str().unwrap();
    id.to_owned()
}

/// The snapshots listed, the oldest first.
pub(crate) fn listed(scratch: &Scratch, arguments: &[&str]) -> Vec<String> {
    let all = ["snapshots", "--json"].iter().chain(arguments);
    let found = scratch.run(all).expect(0).json();
    let found = found["snapshots"].as_array().unwrap().iter();
    found
        .map(|snapshot| snapshot["snapshot"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_policy_says_what_stays_and_why_and_what_goes() {
    let scratch = Scratch::with_repository();
    let home: Vec<String> = (0..3).map(|n| back_up(&scratch, "home", n)).collect();
    let data = back_up(&scratch, "data", 9);

    let would = scratch
        .run(["forget", "--keep-last", "1", "--dry-run"])
        .expect(0)
        .text();
    let said = "dry run, nothing was changed: 2 snapshots would be given up, 2 snapshots kept";
    assert!(would.contains(said), "{would}");
    assert_eq!(listed(&scratch, &[]).len(), 4);

    let only = ["forget", "--keep-last", "1", "--source", "data", "--json"];
    let report = scratch.run(only).expect(0).json();
    assert_eq!(
        (&report["kept"], &report["forgotten"]),
        (&json!(1), &json!([]))
    );

    let reason = ["--reason", "no room"];
    let keep = ["forget", "--keep-last", "1"].iter().chain(&reason);
    let done = scratch.run(keep).expect(0).text();
    let lines: Vec<&str> = done.lines().collect();
    assert_eq!((lines[0], lines[2]), ("data", "home"), "{done}");
    assert!(lines[3].starts_with("  goes   "), "{done}");
    assert!(lines[5].ends_with("  newest complete, last"), "{done}");
    assert!(lines[6].contains("`backup unforget SNAPSHOT`"), "{done}");
    assert_eq!(listed(&scratch, &[]), [&*home[2], &*data]);

    let forgotten = scratch.run(["snapshots", "--forgotten"]).expect(0).text();
    assert_eq!(forgotten.lines().count(), 3, "{forgotten}");
    assert!(forgotten.contains("no room"), "{forgotten}");
    let again = scratch.run(["forget", "--keep-last", "1", "--json"]);
    let again = again.expect(0).json();
    assert_eq!(again["forgotten"], json!([]));
    assert_eq!(
        again["snapshots"][1]["reasons"],
        json!(["newest_complete", "last"])
    );
    assert!(again["requests"]["list"].as_u64().unwrap() > 0);
}

#[test]
fn policies_come_from_a_file_too() {
    let scratch = Scratch::with_repository();
    for n in 0..2 {
        back_up(&scratch, "home", n);
        back_up(&scratch, "data", 10 + n);
    }
    let policy = |text: &str| fs::write(scratch.path("policy.json"), text).unwrap();
    let forget = ["forget", "--policy", "policy.json", "--json"];

    policy(r#"{"default": {"keep_lots": 3}}"#);
    let wrong = scratch.run(forget).expect(1);
    assert_eq!(wrong.error_kind(), "bad_policy");
    assert!(wrong.stderr.contains("keep_lots"), "{}", wrong.stderr);
    policy(r#"{"per_source": {"home": {"keep_last": 1}}}"#);
    let nothing = scratch.run(forget).expect(1);
    assert_eq!(nothing.error_kind(), "bad_policy");
    assert_eq!(listed(&scratch, &[]).len(), 4);

    policy(r#"{"default": {"within": "1d"}, "per_source": {"home": {"keep_last": 1}}}"#);
    let report = scratch.run(forget).expect(0).json();
    assert_eq!(report["kept"], 3);
    assert_eq!(listed(&scratch, &["--source", "home"]).len(), 1);
}

#[test]
fn names_go_and_come_back() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    let second = back_up(&scratch, "home", 2);
    let stamp = first.split_once('-').unwrap().1;
    let given_up = scratch
        .run(["forget", &stamp[..16], &first, "--json"])
        .expect(0);
    assert_eq!(given_up.json()["forgotten"], json!([first]));
    assert_eq!(listed(&scratch, &[]), [&*second]);
    assert_eq!(listed(&scratch, &["--forgotten"]), [&*first]);
    // It is there until it is dropped.
    scratch.run(["restore", &first, "restored"]).expect(0);

    let last = scratch.run(["forget", "latest:home", "--json"]).expect(1);
    assert_eq!(last.error_kind(), "last_snapshot");
    assert!(last.stderr.contains("--force"), "{}", last.stderr);

    let back = scratch.run(["unforget", &first, &second]).expect(0).text();
    assert!(back.contains("home is back\n"), "{back}");
    assert!(back.contains("home was not given up\n"), "{back}");
    assert_eq!(listed(&scratch, &[]), [&*first, &*second]);
}

#[test]
fn what_is_held_stays() {
    let scratch = Scratch::with_repository();
    let first = back_up(&scratch, "home", 1);
    back_up(&scratch, "home", 2);
    let held = scratch.run(["hold", &first, "--json"]).expect(0).json();
    assert_eq!(held["snapshots"][0]["changed"], true);
    let table = scratch.run(["snapshots"]).expect(0).text();
    assert_eq!(table.matches("home (held)").count(), 1, "{table}");
    let found = scratch.run(["snapshots", "--json"]).expect(0).json();
    assert_eq!(found["snapshots"][0]["held"], true);

    let kept = scratch.run(["forget", "--keep-last", "1"]).expect(0);
    assert!(kept.text().contains("  held\n"), "{}", kept.text());
    let refused = scratch.run(["forget", &first, "--json"]).expect(1);
    assert_eq!(refused.error_kind(), "snapshot_held");
    assert!(refused.stderr.contains("backup release"));

    let free = scratch.run(["release", &first]).expect(0).text();
    assert!(free.contains("is held no more"), "{free}");
    let again = scratch.run(["release", &first]).expect(0).text();
    assert!(again.contains("was not held"), "{again}");
    scratch.run(["forget", &first]).expect(0);
}

#[test]
fn much_at_once_and_unknown_sources_are_refused() {
    let scratch = Scratch::with_repository();
    for n in 0..5 {
        back_up(&scratch, "home", n);
    }
    let much = scratch.run(["forget", "--keep-last", "1"]).expect(1);
    let hint = "--dry-run --force shows what would go; --max-forget-percent allows more";
    assert!(much.stderr.contains("80 %"), "{}", much.stderr);
    assert!(much.stderr.contains(hint), "{}", much.stderr);
    assert_eq!(listed(&scratch, &[]).len(), 5);
    let shown = ["forget", "--keep-last", "1", "--dry-run", "--force"];
    assert_eq!(
        scratch.run(shown).expect(0).text().matches("goes").count(),
        4
    );
    let allowed = ["forget", "--keep-last", "1", "--max-forget-percent", "80"];
    scratch.run(allowed).expect(0);
    assert_eq!(listed(&scratch, &[]).len(), 1);

    let unknown = ["forget", "--keep-last", "1", "--source", "hom", "--json"];
    let unknown = scratch.run(unknown).expect(1);
    assert_eq!(unknown.error_kind(), "snapshot_not_found");
}

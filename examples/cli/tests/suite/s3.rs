use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::program::{Output, Scratch, assert_same};
use crate::s3_support::Bucket;

/// The program with a bucket as its repository.
fn command(scratch: &Scratch, bucket: &Bucket, arguments: &[&str]) -> Command {
    let url = format!(
        "s3://{}/site/7?endpoint=http://{}",
        bucket.name, bucket.server
    );
    let mut command = scratch.command(arguments);
    command
        .env("BACKUP_REPOSITORY", url)
        .env("BACKUP_S3_KEY_ID", "AKIDEXAMPLE")
        .env("BACKUP_S3_SECRET", "the-secret");
    command
}

fn run(scratch: &Scratch, bucket: &Bucket, arguments: &[&str]) -> Output {
    Output::of(&mut command(scratch, bucket, arguments))
}

#[test]
fn every_command_works_on_a_bucket() {
    let (scratch, bucket) = (Scratch::new(), Bucket::new());
    let tree = scratch.make_tree("tree");
    let made = run(&scratch, &bucket, &["init", "--json"]).expect(0).json();
    assert_eq!(made["store"]["create_if_absent"], "kept");
    let first = run(
        &scratch,
        &bucket,
        &["backup", "tree", "--name", "t", "--json"],
    )
    .expect(0)
    .json();
    assert!(first["requests"]["put"].as_u64() >= Some(4), "{first}");
    assert_eq!(first["requests"]["head"], 0);
    assert!(
        first["requests"]["price_usd"].as_f64() > Some(0.0),
        "{first}"
    );
    let second = run(
        &scratch,
        &bucket,
        &["backup", "tree", "--name", "t", "--json"],
    )
    .expect(0)
    .json();
    let asked = ["put", "get", "list", "head", "delete"]
        .map(|kind| second["requests"][kind].as_u64().unwrap());
    assert!(asked.iter().sum::<u64>() <= 12, "{second}");
    assert_eq!(second["snapshots"][0]["bytes_read"], 0);
    run(&scratch, &bucket, &["restore", "latest:t", "back"]).expect(0);
    assert_same(&tree, &scratch.path("back"));
    let checked = run(&scratch, &bucket, &["verify", "--data", "--json"])
        .expect(0)
        .json();
    assert_eq!(checked["sound"], true);
    let listed = run(&scratch, &bucket, &["ls", "latest"]).expect(0).text();
    assert!(listed.contains("sub/letter"), "{listed}");
    let stats = run(&scratch, &bucket, &["stats", "--json"])
        .expect(0)
        .json();
    assert_eq!(stats["snapshots"], 2);
    assert_eq!(stats["store"]["create_if_absent"], "kept");
    run(&scratch, &bucket, &["snapshots"]).expect(0);
    run(&scratch, &bucket, &["key", "list"]).expect(0);
    let again = run(&scratch, &bucket, &["init", "--json"]).expect(1);
    assert_eq!(again.error_kind(), "repository_exists");
}

#[test]
fn what_keeps_a_store_from_being_used_is_told() {
    let (scratch, bucket) = (Scratch::new(), Bucket::new());
    let kind = |command: &mut Command| Output::of(command.arg("--json")).expect(1).error_kind();
    let no_key = &mut command(&scratch, &bucket, &["snapshots"]);
    assert_eq!(
        kind(no_key.env_remove("BACKUP_S3_SECRET")),
        "no_credentials"
    );
    let ambient = &mut command(&scratch, &bucket, &["snapshots"]);
    ambient
        .env_remove("BACKUP_S3_SECRET")
        .env("AWS_ACCESS_KEY_ID", "id");
    ambient.env("AWS_SECRET_ACCESS_KEY", "secret");
    assert_eq!(kind(ambient), "no_credentials");
    fs::write(scratch.path("access"), "id\nsecret\n").unwrap();
    fs::set_permissions(scratch.path("access"), PermissionsExt::from_mode(0o644)).unwrap();
    let exposed = &mut command(
        &scratch,
        &bucket,
        &["snapshots", "--s3-credentials", "access"],
    );
    assert_eq!(kind(exposed), "key_file_exposed");
    fs::set_permissions(scratch.path("access"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(scratch.path("key"), "07".repeat(32)).unwrap();
    fs::set_permissions(scratch.path("key"), PermissionsExt::from_mode(0o600)).unwrap();
    let empty = &mut command(
        &scratch,
        &bucket,
        &["snapshots", "--s3-credentials", "access"],
    );
    assert_eq!(
        kind(empty.env_remove("BACKUP_S3_SECRET")),
        "not_a_repository"
    );
    let elsewhere = &mut command(&scratch, &bucket, &["snapshots"]);
    elsewhere.env(
        "BACKUP_REPOSITORY",
        "s3://bucket/x?endpoint=http://store.example",
    );
    assert_eq!(kind(elsewhere), "store_configuration");
    let missing = &mut command(&scratch, &bucket, &["snapshots"]);
    let url = format!("s3://nobody-made-this/x?endpoint=http://{}", bucket.server);
    assert_eq!(
        kind(missing.env("BACKUP_REPOSITORY", url)),
        "store_no_such_bucket"
    );
}

#[test]
fn locked_objects_are_locked_and_verify_looks() {
    let (scratch, bucket) = (Scratch::new(), Bucket::with_lock());
    scratch.make_tree("tree");
    let lock = ["--s3-lock", "governance:30"];
    run(&scratch, &bucket, &[&["init"], &lock[..]].concat()).expect(0);
    run(
        &scratch,
        &bucket,
        &[&["backup", "tree"], &lock[..]].concat(),
    )
    .expect(0);
    let verify = [&["verify", "--json"], &lock[..]].concat();
    let checked = run(&scratch, &bucket, &verify).expect(0).json();
    assert_eq!(checked["unlocked"].as_array().unwrap().len(), 0);
    // A run without the option locks nothing, which is told.
    fs::write(scratch.path("tree/new"), "new").unwrap();
    run(&scratch, &bucket, &["backup", "tree"]).expect(0);
    let checked = run(&scratch, &bucket, &verify).expect(3).json();
    assert!(
        checked["unlocked"].as_array().unwrap().len() >= 3,
        "{checked}"
    );
}

#[test]
fn a_lock_that_the_store_does_not_keep_is_an_error() {
    let (scratch, bucket) = (Scratch::new(), Bucket::new());
    let made = run(
        &scratch,
        &bucket,
        &["init", "--json", "--s3-lock", "compliance:1"],
    );
    assert_eq!(made.status, Some(1), "{}", made.text());
}

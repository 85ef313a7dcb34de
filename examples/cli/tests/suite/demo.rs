use std::fs;

use crate::program::{Scratch, assert_same, names};

#[test]
fn the_demo_compares_and_cleans_up() {
    let scratch = Scratch::new();
    scratch.make_tree("tree");
    fs::create_dir(scratch.path("work")).unwrap();
    let shown = scratch
        .run(["demo", "tree", "--dir", "work"])
        .expect(0)
        .text();
    assert!(shown.contains("identical"), "{shown}");
    assert!(names(&scratch.path("work")).is_empty());

    let document = scratch
        .run(["demo", "tree", "--dir", "work", "--json"])
        .expect(0)
        .json();
    assert_eq!(document["compared"]["differences_count"], 0);
    assert_eq!(document["second"]["bytes_read"], 0);
    assert_eq!(document["verified"]["damage_count"], 0);
    assert!(
        document["second"]["objects"].as_u64() <= Some(6),
        "{document}"
    );
}

#[test]
fn the_demo_leaves_everything_when_told() {
    let scratch = Scratch::new();
    let tree = scratch.make_tree("tree");
    let kept = scratch
        .run(["demo", "tree", "--dir", ".", "--keep", "--json"])
        .expect(0)
        .json();
    let kept = scratch.path(kept["kept"].as_str().unwrap());
    assert_same(&tree, &kept.join("restored"));
    let mut command = scratch.bare();
    command
        .arg("--repo")
        .arg(kept.join("repo"))
        .arg("--key-file")
        .arg(kept.join("key"));
    let listed = crate::program::Output::of(command.args(["ls", "latest"])).expect(0);
    assert!(listed.text().contains("sub/letter"));
}

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Scratch, files};

#[test]
fn verify_names_damage_and_restore_what_it_hurts() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    let packs = files(&scratch.path("repo/packs"));
    let pack = packs
        .iter()
        .max_by_key(|pack| fs::metadata(pack).unwrap().len())
        .unwrap();
    fs::set_permissions(pack, PermissionsExt::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, &bytes).unwrap();

    scratch.run(["verify"]).expect(0);
    let found = scratch.run(["verify", "--data"]).expect(3);
    assert!(found.text().contains("damaged: packs/"), "{}", found.text());
    let found = scratch
        .run(["verify", "--sample", "1000", "--json"])
        .expect(3)
        .json();
    assert_eq!(found["sound"], false);
    assert!(!found["damage"].as_array().unwrap().is_empty());

    let partial = scratch.run(["restore", "latest", "restored"]).expect(3);
    assert!(
        partial.stderr.contains("skipped: sub/deep/large: "),
        "{}",
        partial.stderr
    );
    assert_eq!(fs::read(scratch.path("tree/sub/letter")).unwrap(), b"dear");

    fs::remove_file(pack).unwrap();
    scratch.run(["verify"]).expect(3);
}

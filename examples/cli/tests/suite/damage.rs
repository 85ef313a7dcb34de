use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Scratch, assert_same, files};

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

#[test]
fn a_bad_pack_is_set_aside_and_the_next_backup_heals_it() {
    let scratch = Scratch::with_repository();
    let tree = scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    scratch.run(["repair"]).expect(0);
    let packs = files(&scratch.path("repo/packs"));
    let pack = packs
        .iter()
        .max_by_key(|pack| fs::metadata(pack).unwrap().len())
        .unwrap();
    fs::set_permissions(pack, PermissionsExt::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    bytes[1000] ^= 1;
    fs::write(pack, &bytes).unwrap();

    let found = scratch.run(["repair", "--json"]).expect(3).json();
    assert_eq!(found["set_aside"].as_array().unwrap().len(), 1);
    assert_eq!(found["hurt"].as_array().unwrap().len(), 1);
    scratch.run(["backup", "tree"]).expect(0);
    scratch.run(["restore", "latest", "restored"]).expect(0);
    assert_same(&tree, &scratch.path("restored"));
    let at_once = ["gc", "--pack-age-min", "0s", "--max-delete-percent", "100"];
    scratch.run(at_once).expect(0);
    scratch.run(["verify", "--data"]).expect(0);
}

#[test]
fn a_lost_index_is_written_anew() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    let rebuilt = scratch.run(["rebuild-index"]).expect(0).text();
    assert!(rebuilt.contains("in 1 segment; "), "{rebuilt}");
    for segment in files(&scratch.path("repo/index")) {
        fs::remove_file(segment).unwrap();
    }
    let rebuilt = scratch.run(["rebuild-index", "--json"]).expect(0).json();
    assert_eq!(rebuilt["segments_written"], 1);
    scratch.run(["verify", "--data"]).expect(0);
}

#[test]
fn a_store_that_goes_back_raises_an_alarm() {
    let scratch = Scratch::with_repository();
    scratch.make_tree("tree");
    scratch.run(["backup", "tree"]).expect(0);
    let pins = ["pins", "--file", "state/pins"];
    let first = scratch.run(pins).expect(0).text();
    assert!(first.contains("note: "), "{first}");
    scratch.run(["backup", "tree"]).expect(0);
    let second = scratch.run(pins).expect(0).text();
    assert!(second.contains("1 source with newer snapshots"), "{second}");
    let mut cells = files(&scratch.path("repo/snapshots"));
    cells.sort();
    fs::remove_file(cells.pop().unwrap()).unwrap();
    let alarm = scratch.run(pins).expect(3).text();
    assert!(alarm.contains("ALARM: "), "{alarm}");
    scratch.run(pins).expect(3);
    let found = scratch.run(["snapshots", "--json"]).expect(0).json();
    let source = found["snapshots"][0]["name"].as_str().unwrap().to_owned();
    let accept = ["pins", "--file", "state/pins", "--accept", &source];
    scratch.run(accept).expect(0);
    scratch.run(pins).expect(0);
}

//! SECURITY.md, section 6, items 15 and 16: no secret and no name shows where it should not, and nothing in the store can
//! be told from something known.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod attack_support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use attack_support::pages::path;
use attack_support::*;
use backup::{
    Credential, Error, Event, MasterKey, OpenOptions, Repository, RestoreOptions, RestoreTarget,
    Source, VerifyLevel, Zeroizing, backup, find_snapshot, list_keys, restore, snapshots, stats,
    verify,
};
use backup_backend::Memory;
use backup_core::{blake3, sha256};

const FILE_NAME: &str = "payroll-of-the-board";
const CONTROL: &str = "red\u{1b}[31m\r\n\u{7}\u{202e}name";

/// A master key that is no repetition, so that any piece of it is telling.
fn secret() -> [u8; 32] {
    trees::noise(77, 32).try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ways in which bytes may show in a text.
fn shapes(bytes: &[u8]) -> Vec<String> {
    let piece = &bytes[..bytes.len().min(8)];
    let list = format!("{piece:?}");
    vec![
        String::from_utf8_lossy(bytes).into_owned(),
        hex(piece),
        hex(piece).to_uppercase(),
        list.trim_matches(['[', ']']).to_owned(),
    ]
}

fn assert_tells_nothing(text: &str, secrets: &[&[u8]]) {
    for secret in secrets {
        for shape in shapes(secret) {
            assert!(!text.contains(&shape), "{shape} shows in {text}");
        }
    }
}

fn assert_is_plain(text: &str) {
    let odd = text
        .chars()
        .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert!(odd.is_none(), "{odd:?} shows in {text:?}");
}

/// The texts of an error and of all its causes.
fn texts(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = format!("{error}\n{error:?}\n{error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, "\n{cause}\n{cause:?}");
        source = cause.source();
    }
    text
}

#[test]
fn credentials_print_no_secret() {
    let passphrase = b"correct horse battery staple";
    for credential in [
        Credential::passphrase("correct horse battery staple"),
        Credential::Key(secret().into()),
        Credential::Master(MasterKey::from_bytes(secret().into())),
    ] {
        let text = format!("{credential:?} {credential:#?}").replace([' ', '\n'], "");
        for secret in [&passphrase[..], &secret()] {
            let shapes = shapes(secret)
                .into_iter()
                .map(|shape| shape.replace(' ', ""));
            for shape in shapes {
                assert!(!text.contains(&shape), "{shape} shows in {text}");
            }
        }
    }
}

/// Everything that a program prints of a repository's life: reports, events, errors, objects. What is secret is in none of
/// it; what is odd in a name is escaped.
#[tokio::test]
async fn no_secret_shows_in_what_is_printed() {
    let scratch = tempfile::TempDir::new().unwrap();
    let content = trees::noise(78, 100_000);
    std::fs::write(scratch.path().join(FILE_NAME), &content).unwrap();
    std::fs::write(
        scratch.path().join(CONTROL),
        b"the content of an oddly named file",
    )
    .unwrap();
    let store = Memory::new();
    let credential = || Credential::Master(MasterKey::from_bytes(secret().into()));
    let made = Repository::create(Arc::new(store.clone()), credential(), Default::default()).await;
    let repo = made.unwrap();
    let added = Credential::passphrase(PASSPHRASE);
    backup::add_key(&repo, credential(), added, "label", CHEAP)
        .await
        .unwrap();
    let keys = [Credential::Key(HOST_KEY.into())];
    for key in keys {
        backup::add_key(&repo, credential(), key, "label", CHEAP)
            .await
            .unwrap();
    }

    let printed = Mutex::new(format!("{repo:?} {repo:#?} {store:?}\n"));
    let observer = |event: &Event<'_>| {
        let _ = writeln!(printed.lock().unwrap(), "{event:?}");
    };
    let source = Source::tree(scratch.path());
    let report = backup(&repo, "a source", source, &small_packs(), &observer)
        .await
        .unwrap();
    let say = |text: String| printed.lock().unwrap().push_str(&text);
    say(format!(
        "{report:?}\n{:?}\n",
        snapshots(&repo, &Default::default()).await.unwrap()
    ));
    say(format!(
        "{:?}\n{:?}\n",
        list_keys(&repo).await.unwrap(),
        stats(&repo).await.unwrap()
    ));
    // Damage everything but the configuration and one cell, so that there is much to tell.
    let mut objects = objects_of(&store).await;
    for (name, bytes) in &mut objects {
        if name.starts_with("packs/") || name.starts_with("sessions/") {
            *bytes = bytes.slice(..bytes.len() - 1);
        }
    }
    let damaged = Arc::new(memory_of(&objects).await);
    let damaged = Repository::open(damaged, credential(), OpenOptions::default())
        .await
        .unwrap();
    let found = verify(&damaged, VerifyLevel::AllData, &observer)
        .await
        .unwrap();
    say(format!("{found:?}"));
    let mut errors = vec![
        restore_to(&damaged, &report.snapshot, &spot())
            .await
            .unwrap_err(),
    ];
    errors.push(find_snapshot(&repo, "nothing").await.unwrap_err());
    for wrong in [
        Credential::passphrase("some other secret"),
        Credential::Key([1; 32].into()),
    ] {
        let store = Arc::new(store.clone());
        errors.push(
            Repository::open(store, wrong, OpenOptions::default())
                .await
                .unwrap_err(),
        );
    }
    for odd in [FILE_NAME, CONTROL] {
        let mut options = RestoreOptions::default();
        options.paths = vec![path(odd).join(b"absent").unwrap()];
        let to = RestoreTarget::Directory(spot().target);
        errors.push(
            restore(&repo, &report.snapshot, to, &options, &())
                .await
                .unwrap_err(),
        );
    }
    let mut printed = printed.into_inner().unwrap();
    errors
        .iter()
        .for_each(|error| printed.push_str(&texts(error)));
    let other = b"some other secret";
    let secrets = [
        &secret()[..],
        &HOST_KEY,
        PASSPHRASE.as_bytes(),
        other,
        &content[..64],
    ];
    assert_tells_nothing(&printed, &secrets);
    assert_is_plain(&printed);
    assert!(printed.len() > 4_000);
}

/// Whoever calls may take names from anywhere: what is said of them is fit for a terminal.
#[tokio::test]
async fn errors_about_odd_names_are_fit_for_a_terminal() {
    let repo = open(&sample().objects).await;
    let id = sample().taken[0].id;
    let above = tempfile::TempDir::new().unwrap();
    let odd = above.path().join(CONTROL);
    std::fs::write(&odd, b"").unwrap();
    let options = RestoreOptions::default();
    let into = |target| restore(&repo, &id, target, &options, &());
    let mut one_path = RestoreOptions::default();
    one_path.paths = vec![path(CONTROL)];
    let tree = |path| Source::tree(path);
    let errors = [
        find_snapshot(&repo, CONTROL).await.unwrap_err(),
        find_snapshot(&repo, &format!("latest:{CONTROL}"))
            .await
            .unwrap_err(),
        into(RestoreTarget::Directory(odd.clone()))
            .await
            .unwrap_err(),
        into(RestoreTarget::File(odd.clone())).await.unwrap_err(),
        restore(&repo, &id, RestoreTarget::File(odd.clone()), &one_path, &())
            .await
            .unwrap_err(),
        backup(&repo, "x", tree(odd.clone()), &small_packs(), &())
            .await
            .unwrap_err(),
        backup(&repo, "x", tree(odd.join("x")), &small_packs(), &())
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_is_plain(&error.to_string());
    }
}

/// What somebody who sees the store could compare with what they know: hashes of files, of their compressed form, of names.
#[tokio::test]
async fn nothing_in_the_store_can_be_told_from_a_hash_of_something_known() {
    let scratch = tempfile::TempDir::new().unwrap();
    let mut contents = vec![
        b"a well-known file\n".to_vec(),
        trees::noise(79, 3_000),
        b"abcdefgh".repeat(2_000),
        trees::noise(80, 300_000),
    ];
    let mut known: Vec<Vec<u8>> = ["a source", FILE_NAME, "host", "tag"]
        .map(|name| name.into())
        .into();
    for (number, content) in contents.iter().enumerate() {
        let name = format!("{FILE_NAME}-{number}");
        std::fs::write(scratch.path().join(&name), content).unwrap();
        known.push(name.into_bytes());
    }
    let store = Memory::new();
    let repo = create(Arc::new(store.clone()), MASTER).await;
    let mut options = small_packs();
    options.host = "host".into();
    options.tags = vec!["tag".into()];
    backup(
        &repo,
        "a source",
        Source::tree(scratch.path()),
        &options,
        &(),
    )
    .await
    .unwrap();
    // All together, as one block holds them.
    contents.push(contents.concat());
    known.push(repo.id().as_bytes().to_vec());
    known.append(&mut contents);
    let mut telling = HashSet::new();
    for known in &known {
        for hash in [
            blake3(known).as_bytes().to_vec(),
            sha256(known).as_bytes().to_vec(),
            md5(known).to_vec(),
        ] {
            telling.insert(hash[..8].to_vec());
            telling.insert(hex(&hash).as_bytes()[..8].to_vec());
        }
        // Nor does any of it stand there itself.
        if let Some(piece) = known.get(..8) {
            telling.insert(piece.to_vec());
        }
    }
    for (name, bytes) in objects_of(&store).await {
        let config = name == "config";
        for window in name.as_bytes().windows(8).chain(bytes.windows(8)) {
            // Its format is called after what it is, and it names the repository.
            assert!(
                config || !telling.contains(window),
                "{window:?} shows in {name}"
            );
        }
    }
}

/// Runs of zeros are padding; headers and footers of packs and documents are the same everywhere by design.
fn runs(objects: &Objects) -> Vec<[u8; 16]> {
    let mut runs = Vec::new();
    for (name, bytes) in objects {
        let body = match name {
            name if name == "config" || name.starts_with("keys/") => continue,
            name if name.starts_with("packs/") => 48..bytes.len() - 16,
            _ => 8..bytes.len(),
        };
        let all = bytes[body]
            .windows(16)
            .filter_map(|run| run.try_into().ok());
        runs.extend(all.filter(|run: &[u8; 16]| run.iter().filter(|b| **b == 0).count() < 8));
    }
    runs.sort_unstable();
    runs.dedup();
    runs
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[tokio::test]
async fn two_repositories_of_the_same_content_have_nothing_in_common() {
    for other in [twin(), stranger()] {
        let names = |objects: &Objects| -> HashSet<String> {
            let parts = objects
                .keys()
                .flat_map(|name| name.split(['/', '-']).map(str::to_owned));
            parts
                .filter(|part| part.len() >= 16 && part.bytes().any(|b| b != b'0'))
                .collect()
        };
        let (mine, theirs) = (names(&sample().objects), names(&other.objects));
        let shared: Vec<_> = mine.intersection(&theirs).collect();
        // Under the same keys, a source has the same tag.
        let tags = if std::ptr::eq(other, twin()) { 3 } else { 0 };
        assert_eq!(shared.len(), tags, "{shared:?}");
        // Nor is that tag a secret where it stands again: in the headers of packs.
        let tags: Vec<Vec<u8>> = shared.iter().filter_map(|tag| from_hex(tag)).collect();
        let is_header = |run: &[u8]| tags.iter().any(|tag| run.windows(8).any(|w| w == &tag[..]));
        let mine = runs(&sample().objects);
        let shared = runs(&other.objects)
            .into_iter()
            .filter(|run| mine.binary_search(run).is_ok() && !is_header(&run[..]));
        let shared: Vec<_> = shared.collect();
        assert!(
            shared.is_empty(),
            "{} runs, the first is {:?}",
            shared.len(),
            shared.first()
        );
    }
}

/// RFC 1321, for the sake of one test.
fn md5(input: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut message = input.to_vec();
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if input.len() % 64 >= 56 {
        message.resize(message.len() + 64, 0);
    }
    let end = message.len() - 8;
    message[end..].copy_from_slice(&(input.len() as u64 * 8).to_le_bytes());
    for block in message.chunks_exact(64) {
        let word = |at: usize| u32::from_le_bytes(block[4 * at..4 * at + 4].try_into().unwrap());
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (f, at) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), 7 * step % 16),
            };
            let sine = ((step as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(f).wrapping_add(sine).wrapping_add(word(at));
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16][step % 4]));
        }
        for (word, add) in state.iter_mut().zip([a, b, c, d]) {
            *word = word.wrapping_add(add);
        }
    }
    let mut digest = [0; 16];
    for (place, word) in digest.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

#[test]
fn the_helper_computes_md5() {
    assert_eq!(hex(&md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(hex(&md5(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
    let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
    assert_eq!(hex(&md5(long)), "57edf4a22be3c955ac49da2e2107b67a");
    let _: Zeroizing<[u8; 32]> = secret().into();
}

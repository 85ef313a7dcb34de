//! What a client notices of a store that shows something else than before. Attack 4 of SECURITY.md.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

use backup_core::{RepositoryId, SessionId, SourceTag};
use backup_manifest::{
    ChainCell, PINS_LEN_MAX, PINS_PER_SOURCE_MAX, Pin, PinFinding, PinReport, Pins, PinsError,
    Previous,
};
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

fn id(number: u8) -> SessionId {
    SessionId::from_parts(SourceTag::from_bytes([1; 8]), [number; 16])
}

/// A snapshot of `home`; its hash is as good as one, since nothing here computes any.
fn cell(number: u8, previous: Option<u8>) -> ChainCell {
    ChainCell {
        id: id(number),
        source: "home".to_owned(),
        previous: previous.map(|number| Previous {
            id: id(number),
            hash: [number; 32],
        }),
        hash: [number; 32],
        retired: false,
    }
}

/// Snapshots 1 to `len`, one after the other.
fn chain(len: u8) -> Vec<ChainCell> {
    (1..=len)
        .map(|number| cell(number, (number > 1).then(|| number - 1)))
        .collect()
}

fn check(pins: &Pins, cells: &[ChainCell]) -> PinReport {
    pins.check(REPOSITORY, cells).expect("the same repository")
}

/// What is remembered by somebody who saw `cells`.
fn pins_of(cells: &[ChainCell]) -> Pins {
    check(&Pins::new(REPOSITORY), cells).pins().clone()
}

fn newest(pins: &Pins) -> Vec<Pin> {
    pins.newest("home").collect()
}

fn pin(number: u8) -> Pin {
    Pin {
        id: id(number),
        hash: [number; 32],
    }
}

fn rollback(number: u8) -> PinFinding {
    PinFinding::RollbackDetected {
        source: "home".to_owned(),
        pinned: pin(number),
    }
}

fn fork(number: u8, expected: u8, found: u8) -> PinFinding {
    PinFinding::ForkDetected {
        source: "home".to_owned(),
        snapshot: id(number),
        expected: [expected; 32],
        found: [found; 32],
    }
}

fn gap(missing: u8, named_by: u8) -> PinFinding {
    PinFinding::ChainGap {
        source: "home".to_owned(),
        missing: id(missing),
        named_by: id(named_by),
    }
}

fn two(predecessor: Option<u8>, successors: &[u8]) -> PinFinding {
    PinFinding::TwoSuccessors {
        source: "home".to_owned(),
        predecessor: predecessor.map(id),
        successors: successors.iter().copied().map(id).collect(),
    }
}

#[test]
fn a_first_look_says_that_newer_ones_may_have_been_withheld() {
    let report = check(&Pins::new(REPOSITORY), &chain(3));
    let unpinned = PinFinding::Unpinned {
        source: "home".to_owned(),
    };
    assert_eq!(report.findings, [unpinned]);
    assert!(report.is_sound());
    assert!(report.advanced.is_empty() && report.unchanged.is_empty());
    assert_eq!(newest(report.pins()), [pin(3)]);
}

#[test]
fn a_source_that_goes_on_advances() {
    let pins = pins_of(&chain(3));
    let same = check(&pins, &chain(3));
    assert_eq!(same.unchanged, ["home"]);
    assert!(same.findings.is_empty() && same.advanced.is_empty());
    assert_eq!(*same.pins(), pins);

    let more = check(&pins, &chain(5));
    assert_eq!(more.advanced, ["home"]);
    assert!(more.findings.is_empty() && more.unchanged.is_empty());
    assert_eq!(newest(more.pins()), [pin(5)]);
}

#[test]
fn the_newest_is_the_end_of_the_chain_whatever_the_clocks_said() {
    // Names sort by the writers' clocks: 9, then 3, then 5.
    let cells = [cell(9, None), cell(3, Some(9)), cell(5, Some(3))];
    assert_eq!(newest(&pins_of(&cells)), [pin(5)]);
    let earlier = pins_of(&cells[..1]);
    assert_eq!(check(&earlier, &cells).advanced, ["home"]);
}

#[test]
fn yesterdays_state_is_a_rollback() {
    let pins = pins_of(&chain(3));
    let report = check(&pins, &chain(2));
    assert_eq!(report.findings, [rollback(3)]);
    assert!(!report.is_sound());
    assert!(report.advanced.is_empty() && report.unchanged.is_empty());

    // Remembered until it is back, also when an unsuspecting writer went on from the old state.
    let report = check(report.pins(), &[chain(2), vec![cell(7, Some(2))]].concat());
    assert_eq!(report.findings, [rollback(3)]);
    assert_eq!(newest(report.pins()), [pin(3), pin(7)]);
    let report = check(report.pins(), &[chain(3), vec![cell(7, Some(2))]].concat());
    assert!(report.is_sound());
}

#[test]
fn a_source_that_vanished_is_a_rollback_and_stays_remembered() {
    let pins = pins_of(&chain(3));
    let mut other = cell(8, None);
    other.source = "other".to_owned();
    for cells in [&[][..], &[other]] {
        let report = check(&pins, cells);
        assert!(report.findings.contains(&rollback(3)));
        assert_eq!(newest(report.pins()), [pin(3)]);
    }
    // The very snapshot, passed off as one of another source.
    let mut moved = chain(3);
    moved[2].source = "other".to_owned();
    assert!(check(&pins, &moved).findings.contains(&rollback(3)));
}

#[test]
fn a_forgotten_source_is_taken_as_it_is() {
    let mut pins = pins_of(&chain(3));
    assert!(pins.forget("home"));
    assert!(!pins.forget("home"));
    assert_eq!(pins.sources().count(), 0);
    let report = check(&pins, &chain(2));
    assert!(report.is_sound());
    assert_eq!(newest(report.pins()), [pin(2)]);
    assert_eq!(report.pins().sources().collect::<Vec<_>>(), ["home"]);
}

#[test]
fn another_cell_under_a_remembered_name_is_a_fork() {
    let pins = pins_of(&chain(3));
    let mut cells = chain(3);
    cells[2].hash = [77; 32];
    let report = check(&pins, &cells);
    assert_eq!(report.findings, [fork(3, 3, 77)]);
    assert_eq!(newest(report.pins()), [pin(3)], "the first word counts");

    // One that was made after the wrong one does not make it right.
    let mut after = cell(4, None);
    after.previous = Some(Previous {
        id: id(3),
        hash: [77; 32],
    });
    cells.push(after.clone());
    assert_eq!(check(&pins, &cells).findings, [fork(3, 3, 77)]);
    // Nor when the wrong one is hidden.
    cells.remove(2);
    assert_eq!(check(&pins, &cells).findings, [fork(3, 3, 77), gap(3, 4)]);
}

#[test]
fn a_cell_that_is_not_the_one_its_successor_saw_is_a_fork() {
    let mut cells = chain(3);
    cells[1].hash = [77; 32];
    let report = check(&pins_of(&chain(3)), &cells);
    assert_eq!(report.findings, [fork(2, 2, 77)]);
    let twice = [chain(3), vec![cells[1].clone()]].concat();
    assert_eq!(
        check(&pins_of(&chain(3)), &twice).findings,
        [fork(2, 2, 77)]
    );
}

#[test]
fn a_hole_in_the_chain_is_a_gap() {
    let mut cells = chain(5);
    cells.remove(2);
    let report = check(&pins_of(&chain(5)), &cells);
    assert_eq!(report.findings, [gap(3, 4)]);
    // Also when the missing one is the one that is remembered.
    let report = check(&pins_of(&chain(3)), &cells);
    assert_eq!(report.findings, [gap(3, 4)]);
    assert_eq!(newest(report.pins()), [pin(2), pin(3), pin(5)]);
    // Also on a first look.
    let report = check(&Pins::new(REPOSITORY), &cells);
    assert_eq!(report.findings.len(), 2);
    assert_eq!(report.findings[1], gap(3, 4));
    // A hole of two: nobody can say that what comes behind was made after what is remembered.
    cells.remove(2);
    let report = check(&pins_of(&chain(3)), &cells);
    assert_eq!(report.findings, [rollback(3), gap(4, 5)]);
}

#[test]
fn two_backups_at_once_are_told_once_and_are_no_alarm() {
    let pins = pins_of(&chain(2));
    let mut cells = [chain(2), vec![cell(5, Some(2)), cell(6, Some(2))]].concat();
    let report = check(&pins, &cells);
    assert_eq!(report.findings, [two(Some(2), &[5, 6])]);
    assert!(report.is_sound());
    assert_eq!(report.advanced, ["home"]);
    assert_eq!(newest(report.pins()), [pin(5), pin(6)]);
    assert!(check(report.pins(), &cells).findings.is_empty());

    // Both stay remembered: neither can be hidden.
    cells.push(cell(7, Some(5)));
    let report = check(report.pins(), &cells);
    assert!(report.findings.is_empty());
    assert_eq!(newest(report.pins()), [pin(6), pin(7)]);
    cells.remove(3);
    assert_eq!(check(report.pins(), &cells).findings, [rollback(6)]);
}

#[test]
fn a_writer_that_was_shown_an_empty_store_shows() {
    let pins = pins_of(&chain(2));
    let report = check(&pins, &[chain(2), vec![cell(9, None)]].concat());
    assert_eq!(report.findings, [two(None, &[1, 9])]);
}

#[test]
fn a_snapshot_that_is_given_up_keeps_its_place_but_is_no_second_successor() {
    let mut cells = chain(3);
    cells[2].retired = true;
    let pins = pins_of(&cells);
    assert_eq!(newest(&pins), [pin(3)]);
    cells.push(cell(4, Some(2)));
    let report = check(&pins, &cells);
    assert!(report.findings.is_empty());
    cells.remove(2);
    assert_eq!(check(&pins, &cells).findings, [rollback(3)]);
}

#[test]
fn a_ring_of_cells_ends() {
    let cells = [cell(1, Some(2)), cell(2, Some(1)), cell(3, Some(3))];
    let report = check(&Pins::new(REPOSITORY), &cells);
    assert_eq!(report.pins().sources().count(), 0);
    let report = check(&pins_of(&chain(3)), &cells);
    assert!(report.pins().encode().is_ok());
}

#[test]
fn another_repository_is_told() {
    let found = RepositoryId::from_bytes([2; 16]);
    assert_eq!(
        Pins::new(REPOSITORY).check(found, &[]),
        Err(PinsError::OtherRepository {
            pinned: REPOSITORY,
            found
        })
    );
}

#[test]
fn ends_that_are_remembered_are_bounded() {
    let many: Vec<_> = (1..=200).map(|number| cell(number, None)).collect();
    let report = check(&pins_of(&chain(3)), &many);
    let pins = newest(report.pins());
    assert_eq!(pins.len(), PINS_PER_SOURCE_MAX);
    assert_eq!(pins.last(), Some(&pin(200)));
    let again = check(report.pins(), &many);
    assert_eq!(again.pins(), report.pins());
    assert_eq!(again.unchanged, ["home"]);
    // What is missing goes before what is new.
    let report = check(report.pins(), &chain(1));
    let missing = newest(report.pins());
    assert_eq!(missing, pins);
    assert!(Pins::decode(&report.pins().encode().expect("short")).is_ok());
}

#[test]
fn findings_escape_names() {
    let mut odd = cell(1, None);
    odd.source = "a\u{1b}[2J\n".to_owned();
    let report = check(&pins_of(&[odd]), &[]);
    for finding in &report.findings {
        assert!(finding.to_string().chars().all(|c| !c.is_control()));
    }
    assert_eq!(
        two(None, &[1, 9]).to_string(),
        "2 snapshots of \"home\" say that they are the first: at the same time, or a writer was shown an old state"
    );
}

fn text() -> String {
    let mut other = cell(9, None);
    other.source = "z \u{1f40b}".to_owned();
    let cells = [chain(2), vec![cell(3, Some(1)), other]].concat();
    let bytes = pins_of(&cells).encode().expect("short");
    String::from_utf8(bytes).expect("JSON is text")
}

#[test]
fn pins_read_back() {
    let pins = Pins::decode(text().as_bytes()).expect("valid");
    assert_eq!(newest(&pins), [pin(2), pin(3)]);
    assert_eq!(pins.repository(), REPOSITORY);
    assert_eq!(pins.encode().expect("short"), text().into_bytes());
    let empty = Pins::new(REPOSITORY);
    assert_eq!(Pins::decode(&empty.encode().expect("short")), Ok(empty));
}

#[test]
fn pins_of_another_version_are_told_even_when_nothing_else_is_known() {
    for (text, got) in [
        (r#"{"version":2,"anything":[1]}"#, 2),
        (r#"{"version":0}"#, 0),
    ] {
        assert_eq!(
            Pins::decode(text.as_bytes()),
            Err(PinsError::UnsupportedVersion { got, expected: 1 })
        );
    }
}

#[test]
fn pins_with_a_bad_field_are_refused() {
    let good = text();
    for (from, to) in [
        ("\"version\":1", "\"version\":\"1\""),
        ("\"version\":1,", ""),
        ("\"version\":1", "\"version\":1,\"version\":1"),
        ("\"version\":1", "\"version\":1,\"more\":0"),
        ("\"repository\":\"01", "\"repository\":\""),
        ("\"repository\":\"01", "\"repository\":\"0G"),
        ("\"hash\":\"0202", "\"hash\":\"02"),
        ("\"hash\":\"0202", "\"hash\":\"AA02"),
        ("\"id\":\"01", "\"id\":\"0"),
        ("\"id\":\"01", "\"more\":0,\"id\":\"01"),
        ("\"source\":\"home\"", "\"source\":\"zz\""),
        ("\"source\":\"home\"", "\"source\":\"z \u{1f40b}\""),
        ("\"source\":\"home\"", "\"source\":null"),
        ("-02020202", "-04020202"),
        (&"02".repeat(16), &"03".repeat(16)),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(Pins::decode(bad.as_bytes()).is_err(), "{from} -> {to}");
    }
    let empty = format!(
        r#"{{"version":1,"repository":"{REPOSITORY}","sources":[{{"source":"home","newest":[]}}]}}"#
    );
    assert_eq!(
        Pins::decode(empty.as_bytes()),
        Err(PinsError::BadField { field: "newest" })
    );
    for end in 0..good.len() {
        assert!(Pins::decode(&good.as_bytes()[..end]).is_err());
    }
    for bad in ["", "null", "[]", "{}", "{\"version\":1}", "\u{0}"] {
        assert!(Pins::decode(bad.as_bytes()).is_err());
    }
    let nested = ["{\"version\":1,\"x\":".to_owned(), "[".repeat(100_000)].concat();
    assert!(Pins::decode(nested.as_bytes()).is_err());
    assert!(Pins::decode(format!("{good}{good}").as_bytes()).is_err());
}

#[test]
fn errors_quote_nothing_of_pins() {
    for (from, to) in [
        ("\"version\":1", "\"version\":1,\"SECRET\":1"),
        ("\"id\":\"", "\"id\":\"SECRET"),
    ] {
        let error = Pins::decode(text().replacen(from, to, 1).as_bytes()).expect_err("a bad field");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }
}

#[test]
fn pins_are_bounded() {
    let mut long = cell(1, None);
    long.source = "s".repeat(PINS_LEN_MAX);
    assert!(matches!(
        pins_of(&[long]).encode(),
        Err(PinsError::TooLong { .. })
    ));
    let blank = vec![b' '; PINS_LEN_MAX + 1];
    let len = blank.len();
    assert_eq!(Pins::decode(&blank), Err(PinsError::TooLong { len }));
}

/// A history as it may honestly come about: each snapshot follows any earlier one, or none.
fn any_history() -> impl Strategy<Value = Vec<ChainCell>> {
    let one = (any::<prop::sample::Index>(), 0..8_u8, any::<bool>());
    prop::collection::vec(one, 1..40).prop_map(|parts| {
        let mut cells: Vec<ChainCell> = Vec::new();
        for (number, (index, far, retired)) in parts.into_iter().enumerate() {
            let previous = match (cells.len(), far) {
                (0, _) | (_, 0) => None,
                (len, 1..=2) => Some(index.index(len)),
                (len, _) => Some(len - 1),
            };
            // Names in any order, as clocks may have it.
            let previous = previous.map(|at: usize| cells[at].id.stamp()[0]);
            let mut cell = cell((number as u8).wrapping_mul(73), previous);
            cell.retired = retired;
            cells.push(cell);
        }
        cells
    })
}

/// Cells as nobody honest writes them: few names and hashes, linked at random.
fn any_cells() -> impl Strategy<Value = Vec<ChainCell>> {
    let one = (
        0..8_u8,
        prop::option::of((0..8_u8, 0..8_u8)),
        0..8_u8,
        "[xy]",
        any::<bool>(),
    );
    let cell = one.prop_map(|(number, previous, hash, source, retired)| ChainCell {
        id: id(number),
        source,
        previous: previous.map(|(number, hash)| Previous {
            id: id(number),
            hash: [hash; 32],
        }),
        hash: [hash; 32],
        retired,
    });
    prop::collection::vec(cell, 0..12)
}

proptest! {
    #[test]
    fn an_honest_history_raises_no_alarm_however_often_one_looks(
        cells in any_history(),
        looks in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut pins = Pins::new(REPOSITORY);
        for len in (0..=cells.len()).filter(|len| looks[len % looks.len()]) {
            let report = check(&pins, &cells[..len]);
            prop_assert!(report.is_sound(), "{:?}", report.findings);
            pins = report.pins().clone();
        }
        prop_assert!(check(&pins, &cells).is_sound());
    }

    #[test]
    fn nothing_that_was_seen_can_be_hidden(
        cells in any_history(),
        seen in any::<prop::sample::Index>(),
        hidden in prop::collection::vec(any::<bool>(), 40),
    ) {
        let seen = seen.index(cells.len()) + 1;
        let pins = pins_of(&cells[..seen]);
        let shown: Vec<_> = cells.iter().zip(&hidden).filter(|(_, hidden)| !**hidden).collect();
        let shown: Vec<_> = shown.into_iter().map(|(cell, _)| cell.clone()).collect();
        let is_hidden = hidden[..seen].contains(&true);
        let report = check(&pins, &shown);
        if is_hidden {
            prop_assert!(!report.is_sound());
        }
        // When everything is shown again, everything is well.
        prop_assert!(check(report.pins(), &cells).is_sound());
    }

    #[test]
    fn nothing_that_was_seen_can_be_replaced(
        cells in any_history(),
        seen in any::<prop::sample::Index>(),
        replaced in any::<prop::sample::Index>(),
    ) {
        let seen = seen.index(cells.len()) + 1;
        let pins = pins_of(&cells[..seen]);
        let mut shown = cells.clone();
        shown[replaced.index(seen)].hash[0] ^= 1;
        let findings = check(&pins, &shown).findings;
        prop_assert!(findings.iter().any(|f| matches!(f, PinFinding::ForkDetected { .. })), "{:?}", findings);
    }

    #[test]
    fn pins_never_go_back(before in any_cells(), after in any_cells()) {
        let pins = pins_of(&before);
        let report = check(&pins, &after);
        for source in pins.sources() {
            let now: Vec<_> = report.pins().newest(source).collect();
            for pin in pins.newest(source) {
                let is_shown = after.iter().any(|c| c.source == source && c.id == pin.id && c.hash == pin.hash);
                prop_assert!(now.contains(&pin) || is_shown);
            }
        }
        let bytes = report.pins().encode().expect("short");
        prop_assert_eq!(&Pins::decode(&bytes).expect("valid"), report.pins());
    }

    #[test]
    fn the_order_of_cells_does_not_matter(
        before in any_cells(),
        (cells, shuffled) in any_cells().prop_flat_map(|cells| (Just(cells.clone()), Just(cells).prop_shuffle())),
    ) {
        let pins = pins_of(&before);
        prop_assert_eq!(check(&pins, &cells), check(&pins, &shuffled));
    }

    #[test]
    fn pins_survive_damage(at in any::<usize>(), flip in 1..=255_u8) {
        let mut bytes = text().into_bytes();
        let index = at % bytes.len();
        bytes[index] ^= flip;
        if let Ok(pins) = Pins::decode(&bytes) {
            let again = pins.encode().expect("what was read can be written");
            prop_assert_eq!(Pins::decode(&again), Ok(pins));
        }
    }
}

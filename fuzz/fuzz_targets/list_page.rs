#![no_main]
//! A list that decodes can be written again, entry by entry.
use backup_manifest::{ListWriter, PageParams, decode_list};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let level = bytes.first().copied().unwrap_or_default();
    let Ok(entries) = decode_list(bytes, level) else {
        return;
    };
    let mut writer = ListWriter::new(level, PageParams::default()).expect("the level was read");
    let mut pages = Vec::new();
    for entry in &entries {
        pages.extend(writer.push(entry).expect("the entries are in order"));
    }
    pages.extend(writer.finish().expect("nothing is missing"));
    let again = pages
        .iter()
        .flat_map(|page| decode_list(&page.bytes, level).expect("just written"));
    assert_eq!(again.collect::<Vec<_>>(), entries);
});

#![no_main]
//! A page that reads well and stands alone can be written again, record by record.
use backup_manifest::{PageParams, PageReader, StreamChecker};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let records = PageReader::new(bytes).and_then(|page| page.collect::<Result<Vec<_>, _>>());
    let Ok(records) = records else { return };
    let mut checker = StreamChecker::new();
    let mut views = records.iter().map(|record| record.view());
    if views.all(|record| checker.record(&record).is_ok()) && checker.finish().is_ok() {
        let pages = backup_fuzz::pages(&records, PageParams::default());
        assert_eq!(backup_fuzz::records(&pages), records);
    }
});

#![no_main]
//! Headers and footers have one form each; no pack that a stranger wrote shows a directory.
use backup_core::{
    PACK_FOOTER_LEN, PACK_HEADER_LEN, PackFooter, PackHeader, PackId, check_pack, open_directory,
};
use backup_fuzz::{REPOSITORY, keys};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let len = bytes.len() as u64;
    if let Ok(header) = PackHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..PACK_HEADER_LEN]);
    }
    let Some(footer) = bytes.last_chunk::<PACK_FOOTER_LEN>() else {
        return;
    };
    let Ok(footer) = PackFooter::decode(footer) else {
        return;
    };
    assert_eq!(footer.encode(), bytes[bytes.len() - PACK_FOOTER_LEN..]);
    let id = PackId::from_bytes(*backup_core::blake3(bytes).as_bytes());
    let checked = check_pack(bytes, &id);
    let (Ok(range), Some(header)) = (footer.directory_range(len), bytes.first_chunk()) else {
        return;
    };
    let sealed = &bytes[range.start as usize..range.end as usize];
    assert!(open_directory(keys(), REPOSITORY, header, sealed, len).is_err());
    assert!(checked.is_err() || PackHeader::decode(bytes) == checked);
});

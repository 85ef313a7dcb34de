//! What can only be tested from inside: kernels without openat2.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{LocalFs, LocalFsOptions};
use crate::testing::{ConformanceOptions, conformance};
use crate::{Bytes, ErrorKind, ObjectKey, PutMode, StorageBackend};

#[tokio::test(flavor = "multi_thread")]
async fn without_openat2_a_local_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    let suite = ConformanceOptions::default();
    let page_len = suite.page_len;
    let factory = || async {
        let root = dir
            .path()
            .join(made.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&root).unwrap();
        LocalFs::open_resolving(&root, LocalFsOptions { page_len }, false).unwrap()
    };
    conformance(factory, suite).await.assert_ok();
}

#[tokio::test]
async fn symlinks_are_refused_with_and_without_openat2() {
    for allow_openat2 in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::create_dir_all(root.join("packs")).unwrap();
        std::fs::write(outside.join("precious"), b"x").unwrap();
        symlink(&outside, root.join("packs/ab")).unwrap();
        symlink("../../outside/precious", root.join("packs/link")).unwrap();
        let store =
            LocalFs::open_resolving(&root, LocalFsOptions::default(), allow_openat2).unwrap();
        for name in [
            "packs/ab/precious",
            "packs/ab/new",
            "packs/ab/deep/new",
            "packs/link",
        ] {
            let key = ObjectKey::parse(name).unwrap();
            let kind = |error: crate::BackendError| error.kind();
            let put = store.put(&key, Bytes::from("y"), PutMode::Create).await;
            assert_eq!(put.map_err(kind), Err(ErrorKind::Corrupt), "put {name}");
            assert_eq!(
                store.get(&key, None).await.map_err(kind),
                Err(ErrorKind::Corrupt),
                "get {name}"
            );
            assert_eq!(
                store.head(&key).await.map_err(kind),
                Err(ErrorKind::Corrupt),
                "head {name}"
            );
            if name != "packs/link" {
                let put = store.put(&key, Bytes::from("y"), PutMode::Overwrite).await;
                assert_eq!(
                    put.map_err(kind),
                    Err(ErrorKind::Corrupt),
                    "overwrite {name}"
                );
                let deleted = store.delete(&[key]).await.unwrap().remove(0);
                assert_eq!(
                    deleted.map_err(kind),
                    Err(ErrorKind::Corrupt),
                    "delete {name}"
                );
            }
        }
        assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(outside.join("deep")).unwrap().count(), 0);
    }
}

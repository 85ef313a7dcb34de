//! What a host embeds it may spawn: the future of every verb can be sent to another thread.
#![allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]

use std::pin::Pin;

use backup::{
    BackupOptions, CopyOptions, Forget, ForgetOptions, GcOptions, Repository, RestoreOptions,
    RestoreTarget, Selection, SessionId, SnapshotFilter, Source, VerifyLevel,
};

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Never run: that it compiles is the test. With lifetimes left open, as in a method of a trait.
#[expect(dead_code, reason = "it only has to compile")]
fn futures<'a>(repo: &'a Repository, id: &'a SessionId, source: Source) -> Vec<Boxed<'a>> {
    vec![
        Box::pin(async move {
            let options = BackupOptions::default();
            backup::backup(repo, "", source, &options, &())
                .await
                .unwrap();
        }),
        Box::pin(async move {
            let (to, options) = (
                RestoreTarget::Directory("".into()),
                RestoreOptions::default(),
            );
            backup::restore(repo, id, to, &options, &()).await.unwrap();
        }),
        Box::pin(async move {
            let level = VerifyLevel::AllData;
            backup::verify(repo, level, &()).await.unwrap();
            backup::repair(repo, level, &()).await.unwrap();
            backup::rebuild_index(repo, &()).await.unwrap();
        }),
        Box::pin(async move {
            let filter = SnapshotFilter::default();
            let found = backup::snapshots(repo, &filter).await.unwrap();
            for snapshot in &found {
                drop(backup::list(repo, snapshot, None).await.unwrap());
            }
            backup::find_snapshot(repo, "latest").await.unwrap();
            backup::stats(repo).await.unwrap();
            backup::probe(repo).await.unwrap();
        }),
        Box::pin(async move {
            let (what, options) = (Forget::These(vec![*id]), ForgetOptions::default());
            backup::forget(repo, &what, &options).await.unwrap();
            backup::unforget(repo, id).await.unwrap();
            backup::hold(repo, id).await.unwrap();
            backup::release(repo, id).await.unwrap();
            backup::decisions(repo).await.unwrap();
        }),
        Box::pin(async move {
            backup::gc(repo, &GcOptions::default(), &()).await.unwrap();
        }),
        Box::pin(async move {
            let (which, options) = (Selection::These(vec![*id]), CopyOptions::default());
            backup::copy(repo, repo, &which, &options, &())
                .await
                .unwrap();
        }),
    ]
}

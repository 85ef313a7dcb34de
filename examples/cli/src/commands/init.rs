use backup::{CreateOptions, Error, Repository, probe};
use serde_json::json;

use crate::args::{GlobalArguments, InitArguments};
use crate::commands::stats;
use crate::failure::Failure;
use crate::place::{Place, Store, holds_repository};
use crate::s3;
use crate::ui::{Outcome, Ui};
use crate::unlock::Secret;

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: InitArguments,
) -> Result<Outcome, Failure> {
    let Store { backend: store, s3 } = Place::of(global)?.create(ui).await?;
    // Before a key file is made for nothing.
    if holds_repository(&store).await? {
        return Err(Error::RepositoryExists.into());
    }
    let new = Secret::for_init(global).await?;
    let mut options = CreateOptions::default();
    options.label = arguments.label.unwrap_or_else(super::backup::host_name);
    let repo = Repository::create(store, new.secret.credential(), options).await?;
    if let Some(s3) = s3
        && global.s3.locks()
        && !s3::is_locked(&s3, "config").await?
    {
        return Err(Failure::LockIgnored);
    }
    let probe = probe(&repo).await?;
    let document = json!({
        "repository": repo.id(),
        "location": global.repo,
        "key_file": new.key_file,
        "key_file_created": new.is_created,
        "store": stats::probe_document(&probe),
    });
    ui.result(&document, || {
        let mut text = format!("made repository {} in {}\n", repo.id(), global.repo.as_deref().unwrap_or_default());
        match &new.key_file {
            Some(path) if new.is_created => text.push_str(&format!(
                "made key file {path:?}: without it nobody can read the repository, so keep a copy elsewhere\n"
            )),
            Some(_) => {}
            None => text.push_str("without the passphrase nobody can read the repository\n"),
        }
        if !probe.is_safe() {
            text.push_str(
                "WARNING: this store overwrites what it should leave alone, or lists late. Backups and restores work; \
                 garbage may only be collected while nobody writes. `backup stats` says more\n",
            );
        }
        text
    })?;
    Ok(Outcome::Complete)
}

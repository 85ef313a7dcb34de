use backup::{CreateOptions, Error, Repository};
use serde_json::json;

use crate::args::{GlobalArguments, InitArguments};
use crate::failure::Failure;
use crate::place::{Place, holds_repository};
use crate::ui::{Outcome, Ui};
use crate::unlock::Secret;

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: InitArguments,
) -> Result<Outcome, Failure> {
    let store = Place::of(global)?.create()?;
    // Before a key file is made for nothing.
    if holds_repository(&store).await? {
        return Err(Error::RepositoryExists.into());
    }
    let new = Secret::for_init(global).await?;
    let mut options = CreateOptions::default();
    options.label = arguments.label.unwrap_or_else(super::backup::host_name);
    let repo = Repository::create(store, new.secret.credential(), options).await?;
    let document = json!({
        "repository": repo.id(),
        "location": global.repo,
        "key_file": new.key_file,
        "key_file_created": new.is_created,
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
        text
    })?;
    Ok(Outcome::Complete)
}

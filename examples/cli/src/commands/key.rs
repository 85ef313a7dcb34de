use std::path::Path;

use backup::{Argon2Params, KeySlot, add_key, list_keys, remove_key};
use serde_json::json;

use crate::args::{GlobalArguments, KeyCommand, NewSecretArguments};
use crate::failure::Failure;
use crate::place;
use crate::text::{self, Align};
use crate::ui::{Outcome, Ui};
use crate::unlock::{Secret, generate_key_file};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    command: KeyCommand,
) -> Result<Outcome, Failure> {
    match command {
        KeyCommand::Add(new) => add(ui, global, new).await?,
        KeyCommand::Remove { slot } => remove(ui, global, &slot).await?,
        KeyCommand::List => show(ui, global).await?,
        KeyCommand::Generate { file } => generate(ui, &file)?,
    }
    Ok(Outcome::Complete)
}

async fn add(ui: &Ui, global: &GlobalArguments, new: NewSecretArguments) -> Result<(), Failure> {
    let (repo, opener) = place::open_with_secret(ui, global).await?;
    let added = Secret::for_slot(&new).await?;
    let label = new.label.unwrap_or_default();
    let (opener, secret) = (opener.credential(), added.secret.credential());
    let slot = add_key(&repo, opener, secret, &label, Argon2Params::default()).await?;
    let document = json!({
        "slot": slot,
        "label": label,
        "key_file": added.key_file,
        "key_file_created": added.is_created,
    });
    ui.result(&document, || {
        let made = match &added.key_file {
            Some(path) if added.is_created => {
                format!("made key file {path:?}: keep a copy elsewhere\n")
            }
            _ => String::new(),
        };
        format!("{made}added key slot {slot}\n")
    })
}

async fn remove(ui: &Ui, global: &GlobalArguments, beginning: &str) -> Result<(), Failure> {
    let repo = place::open(ui, global).await?;
    let slots = list_keys(&repo).await?;
    let found: Vec<&KeySlot> = slots
        .iter()
        .filter(|known| known.slot.to_string().starts_with(beginning))
        .collect();
    let [found] = found[..] else {
        return Err(Failure::SlotNotFound {
            slot: beginning.to_owned(),
            count: found.len(),
        });
    };
    remove_key(&repo, &found.slot).await?;
    ui.result(&json!({ "removed": found.slot }), || {
        format!("removed key slot {}", found.slot)
    })
}

async fn show(ui: &Ui, global: &GlobalArguments) -> Result<(), Failure> {
    let repo = place::open(ui, global).await?;
    let slots = list_keys(&repo).await?;
    let kind = |slot: &KeySlot| {
        if slot.is_passphrase {
            "passphrase"
        } else {
            "key"
        }
    };
    let document =
        |slot: &KeySlot| json!({ "slot": slot.slot, "kind": kind(slot), "label": slot.label });
    let documents: Vec<_> = slots.iter().map(document).collect();
    ui.result(&json!({ "keys": documents }), || {
        let row = |slot: &KeySlot| {
            vec![
                slot.slot.to_string(),
                kind(slot).to_owned(),
                text::clean(&slot.label),
            ]
        };
        let columns = [
            ("SLOT", Align::Left),
            ("OPENS WITH", Align::Left),
            ("LABEL", Align::Left),
        ];
        text::table(&columns, &slots.iter().map(row).collect::<Vec<_>>())
    })
}

fn generate(ui: &Ui, file: &Path) -> Result<(), Failure> {
    generate_key_file(file)?;
    ui.result(&json!({ "key_file": file }), || {
        format!("made key file {file:?}: keep a copy elsewhere")
    })
}

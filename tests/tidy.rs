//! What no compiler checks: which crate may know which, how long files are, that front pages stay front pages, that every
//! format version is tested, and that the documents name commands and files that exist. Each failure says what to do.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which crates of this workspace a crate may depend on. Whoever is missing here may know nobody.
/// *What bytes mean* (core ← manifest, journal) and *where bytes are* (backend ← backend-s3) meet in `backup` alone.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("backup-core", &[]),
    ("backup-manifest", &["backup-core"]),
    ("backup-journal", &["backup-core"]),
    ("backup-backend", &[]),
    ("backup-backend-s3", &["backup-backend"]),
    ("backup", LIBRARIES),
];
const LIBRARIES: &[&str] = &[
    "backup-core",
    "backup-manifest",
    "backup-journal",
    "backup-backend",
    "backup-backend-s3",
    "backup",
];

/// Crates that do no I/O, read no clock and draw no random number, and what would let them.
const PURE: &[&str] = &["backup-core", "backup-manifest"];
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "futures",
    "async-trait",
    "rustix",
    "libc",
    "getrandom",
    "rand",
    "tempfile",
];
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "async fn",
];

/// What no library source holds, outside comments and tests.
const FORBIDDEN_WORDS: &[(&str, &str)] = &[
    ("todo!(", WRITE),
    ("unimplemented!(", WRITE),
    ("dbg!(", PRINT),
    ("print!(", PRINT),
    ("println!(", PRINT),
    ("process::exit(", WRITE),
    ("bincode", "unmaintained (RUSTSEC-2025-0141): write bytes"),
];
const WRITE: &str = "write the code, or return a typed error";
const PRINT: &str = "libraries never print: return it, or tell the observer";

/// A file longer than this fails, one longer than that is listed (`cargo test --test tidy -- --nocapture`).
const LINES_MAX: usize = 800;
const LINES_SOFT: usize = 400;
/// A front page's example is no longer, in lines that are shown.
const EXAMPLE_LINES_MAX: usize = 20;

/// One package of the workspace.
struct Package {
    name: String,
    dir: PathBuf,
    manifest: Value,
}

impl Package {
    fn is_library(&self) -> bool {
        LIBRARIES.contains(&self.name.as_str())
    }

    /// Declared dependencies with the kind of each: `normal`, `dev` or `build`.
    fn dependencies(&self) -> Vec<(&str, &str)> {
        let all = self.manifest["dependencies"].as_array().unwrap();
        all.iter()
            .map(|found| {
                let kind = found["kind"].as_str().unwrap_or("normal");
                (found["name"].as_str().unwrap(), kind)
            })
            .collect()
    }

    fn targets(&self, kind: &str) -> Vec<&str> {
        let all = self.manifest["targets"].as_array().unwrap();
        all.iter()
            .filter(|target| target["kind"][0] == kind)
            .map(|target| target["name"].as_str().unwrap())
            .collect()
    }

    /// The sources that others link, without what is compiled for tests only.
    fn sources(&self) -> Vec<PathBuf> {
        files(&self.dir.join("src"), "rs")
            .into_iter()
            .filter(|path| !path.ends_with("tests.rs"))
            .collect()
    }

    /// A finding for each line of the sources that holds one of `words`, which come with a remedy.
    fn lines_with<'w>(
        &self,
        words: impl Iterator<Item = (&'w str, &'w str)> + Clone,
    ) -> Vec<String> {
        let mut findings = Vec::new();
        for path in self.sources() {
            for (number, line) in code(&read(&path)) {
                for (word, remedy) in words.clone().filter(|(word, _)| line.contains(word)) {
                    let place = shown(&path);
                    findings.push(format!("{place}:{number}: `{word}`: {remedy}"));
                }
            }
        }
        findings
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packages() -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root());
    let output = cargo.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| Package {
            name: package["name"].as_str().unwrap().to_owned(),
            dir: Path::new(package["manifest_path"].as_str().unwrap())
                .parent()
                .unwrap()
                .to_owned(),
            manifest: package.clone(),
        })
        .collect()
}

/// All files below `dir` whose names end with `.extension`, but for what was built or found by tools.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_made = ["target", "corpus", "artifacts"].contains(&name.as_str());
        if path.is_dir() && !path.is_symlink() && !is_made && !name.starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}: this file has to be there", shown(path)))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Fails with all findings at once.
fn check(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n  {}\n", findings.join("\n  "));
}

/// The lines of a source that are compiled into the library, with their numbers: no comments, no tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn dependencies_point_one_way() {
    let may_know: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let packages = packages();
    let ours: Vec<&str> = packages.iter().map(|found| found.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        let is_example = package.dir.starts_with(root().join("examples"));
        if !is_example && !may_know.contains_key(name) {
            findings.push(format!(
                "{name}: a new crate: say in MAY_KNOW of tests/tidy.rs whom it may know"
            ));
        }
        let allowed = match is_example {
            true => LIBRARIES,
            false => may_know.get(name).copied().unwrap_or_default(),
        };
        for (other, kind) in package.dependencies() {
            if ours.contains(&other) && other != name && !allowed.contains(&other) {
                findings.push(format!(
                    "{name} must not depend on {other} ({kind}): only the root package joins what bytes mean with \
                     where bytes are, and nobody uses an example; move the code to the side it belongs to"
                ));
            }
            if PURE.contains(&name) && kind == "normal" && IMPURE_CRATES.contains(&other) {
                findings.push(format!(
                    "{name} must not depend on {other}: it does no I/O; take bytes, times and random bytes as \
                     arguments"
                ));
            }
        }
    }
    check(findings);
}

#[test]
fn pure_crates_do_no_io() {
    let mut findings = Vec::new();
    for package in packages() {
        if PURE.contains(&package.name.as_str()) {
            findings.extend(package.lines_with(IMPURE_WORDS.iter().map(|word| {
                let remedy = "this crate does no I/O: take what it gives as an argument";
                (*word, remedy)
            })));
        }
    }
    check(findings);
}

#[test]
fn library_sources_hold_no_leftovers() {
    let mut findings = Vec::new();
    for package in packages().iter().filter(|package| package.is_library()) {
        findings.extend(package.lines_with(FORBIDDEN_WORDS.iter().copied()));
        for path in package.sources() {
            let (text, place) = (read(&path), shown(&path));
            for mark in ["TODO", "FIXME", "XXX"] {
                if text.replace("TODO(#", "").contains(mark) {
                    findings.push(format!(
                        "{place}: a {mark}: mend it, or write `TODO(#issue)`"
                    ));
                }
            }
            for start in ["[allow(", "[expect("] {
                for relaxed in text.split(start).skip(1) {
                    if !relaxed.split(")]").next().unwrap().contains("reason = ") {
                        let lint = relaxed.split([',', ')']).next().unwrap().trim();
                        findings.push(format!("{place}: {lint} is relaxed: add `reason = …`"));
                    }
                }
            }
        }
    }
    check(findings);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut findings = Vec::new();
    for package in packages() {
        let manifest = package.dir.join("Cargo.toml");
        let text = read(&manifest);
        let takes = section(&text, "[lints]").any(|line| line == "workspace = true");
        if !takes && !text.lines().any(|line| line == "lints.workspace = true") {
            let place = shown(&manifest);
            findings.push(format!("{place}: add `[lints]` with `workspace = true`"));
        }
    }
    let text = read(&root().join("Cargo.toml"));
    if !section(&text, "[workspace.lints.rust]").any(|line| line == "unsafe_code = \"forbid\"") {
        findings.push("Cargo.toml: `unsafe_code = \"forbid\"` must stay: use a crate".to_owned());
    }
    check(findings);
}

/// The lines of one table of a manifest.
fn section<'a>(text: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().map(str::trim);
    lines
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
}

#[test]
fn files_are_short_enough_to_read() {
    let mut findings = Vec::new();
    for path in files(root(), "rs") {
        let (lines, place) = (read(&path).lines().count(), shown(&path));
        if lines > LINES_MAX {
            findings.push(format!(
                "{place} has {lines} lines, more than {LINES_MAX}: divide it by what its parts are about"
            ));
        } else if lines > LINES_SOFT {
            println!("{place} has {lines} lines, {LINES_SOFT} is what a file should have");
        }
    }
    check(findings);
}

#[test]
fn front_pages_hold_no_logic() {
    let mut findings = Vec::new();
    for package in packages().iter().filter(|package| package.is_library()) {
        let path = package.dir.join("src/lib.rs");
        let (text, place) = (read(&path), shown(&path));
        for (number, line) in code(&text) {
            // What is indented or closes a list belongs to the line that opened it.
            let continues = line.is_empty() || line.starts_with([' ', '}', ')', '#']);
            let lists = ["mod ", "pub mod ", "use ", "pub use ", "pub(crate) "];
            if !continues && !lists.iter().any(|start| line.starts_with(start)) {
                findings.push(format!(
                    "{place}:{number}: a front page only lists (`mod`, `use`): move `{line}` to a module"
                ));
            }
        }
        let example = text.split("//! ```").nth(1).unwrap_or_default();
        let lines = example.lines().skip(1);
        let shown_len = lines.filter(|line| !line.starts_with("//! #")).count();
        if !text.starts_with("//! ") || shown_len == 0 {
            findings.push(format!(
                "{place}: begin with one sentence, then an example that runs"
            ));
        }
        if shown_len > EXAMPLE_LINES_MAX {
            findings.push(format!(
                "{place}: the example shows {shown_len} lines, {EXAMPLE_LINES_MAX} are enough"
            ));
        }
    }
    check(findings);
}

#[test]
fn every_format_version_is_tested() {
    let mut findings = Vec::new();
    let packages = packages();
    for package in packages.iter().filter(|package| package.is_library()) {
        let tests = files(&package.dir.join("tests"), "rs");
        let tests: String = tests.iter().map(|path| read(path)).collect();
        for version in fs::read_dir(package.dir.join("testdata"))
            .into_iter()
            .flatten()
        {
            let version = version.unwrap().file_name().into_string().unwrap();
            if !tests.contains(&format!("testdata/{version}")) {
                let name = &package.name;
                findings.push(format!(
                    "{name}: no test names testdata/{version}: what once was written must be read for ever; \
                     add a test of it"
                ));
            }
        }
        if PURE.contains(&package.name.as_str()) && !package.dir.join("testdata/v1").is_dir() {
            let name = &package.name;
            findings.push(format!(
                "{name}: testdata/v1 is gone: format versions are kept for ever"
            ));
        }
    }
    check(findings);
}

#[test]
fn licences_and_documents_are_there() {
    let wanted = [
        ("LICENSE-MIT", "the text of the licence"),
        ("LICENSE-APACHE", "the text of the licence"),
        ("README.md", "what it is, hello, the two commands"),
        ("ARCHITECTURE.md", "picture, code map, invariants, glossary"),
        ("FORMAT.md", "the bytes of every object"),
        ("SECURITY.md", "what is promised against whom"),
        ("CONTRIBUTING.md", "the commands"),
        ("CHANGELOG.md", "what users will notice"),
    ];
    let missing = wanted
        .iter()
        .filter(|(name, _)| !root().join(name).is_file());
    check(
        missing
            .map(|(name, what)| format!("{name} is missing: write it ({what})"))
            .collect(),
    );
}

/// Commands in the fenced blocks and links of the documents at the root.
#[test]
fn documents_name_commands_and_files_that_exist() {
    let packages = packages();
    let mut findings = Vec::new();
    for path in files(root(), "md") {
        let (text, place) = (read(&path), shown(&path));
        let dir = path.parent().unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#', ' ']).next().unwrap();
            if !link.is_empty() && !link.contains("://") && !dir.join(link).exists() {
                findings.push(format!("{place}: links to {link}, which is not there"));
            }
        }
        for line in commands(&text) {
            if let Some(problem) = problem_of(line, &packages) {
                findings.push(format!("{place}: `{line}`: {problem}"));
            }
        }
    }
    check(findings);
}

/// Lines that a person would type: in fenced blocks that are not Rust, or indented by four.
fn commands(text: &str) -> Vec<&str> {
    let mut fence: Option<bool> = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(["", "sh", "bash", "console", "text"].contains(&language.trim())),
            };
        } else if fence == Some(true) || (fence.is_none() && line.starts_with("    ")) {
            found.push(line.trim().trim_start_matches("$ "));
        }
    }
    found
}

/// What is wrong with a command: a package, target or script that does not exist.
fn problem_of(line: &str, packages: &[Package]) -> Option<String> {
    let words = line.split_whitespace();
    let words: Vec<&str> = words.skip_while(|word| word.contains('=')).collect();
    let program = *words.first()?;
    if program.starts_with("scripts/") || program.starts_with(".ci/") {
        let mode = fs::metadata(root().join(program)).map(|found| found.permissions().mode());
        return match mode {
            Ok(mode) if mode & 0o111 == 0o111 => None,
            Ok(_) => Some(format!("make it executable: chmod +x {program}")),
            Err(_) => Some("there is no such script".to_owned()),
        };
    }
    if program != "cargo" {
        return None;
    }
    let ours = words.iter().take_while(|word| **word != "--");
    for (flag, name) in ours.clone().zip(ours.skip(1)) {
        let exists = |kind| packages.iter().any(|p| p.targets(kind).contains(name));
        let is_there = match *flag {
            "-p" | "--package" => packages.iter().any(|package| package.name == *name),
            "--example" => exists("example"),
            "--bin" => exists("bin"),
            "--bench" => exists("bench"),
            "--test" => exists("test"),
            _ => true,
        };
        if !is_there {
            return Some(format!("`{flag} {name}` names nothing in this workspace"));
        }
    }
    None
}

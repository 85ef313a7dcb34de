"""The programs that compare.py compares: how each is asked to do the same thing.

All: zstd 3, encryption (but tar), default caches (in a directory of their own), a repository in a directory of the same disk.
"""
import os
import shlex
import subprocess
from pathlib import Path

PASSPHRASE = "correct horse battery staple"


class Place:
    """One tool's repository, keys, caches and restored files in one run."""

    def __init__(self, root):
        self.root = root
        self.repository = root / "repository"
        self.key = root / "key"
        self.passphrase = root / "passphrase"
        # The last line that the latest command printed.
        self.last_line = ""
        # How many backups were asked for, for tools whose snapshots need names of their own.
        self.backups = 0

    def make(self):
        (self.root / "home").mkdir(parents=True)
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.passphrase.chmod(0o600)

    def environment(self, tool):
        home = str(self.root / "home")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return {**kept, "HOME": home, "XDG_CACHE_HOME": f"{home}/.cache", "XDG_CONFIG_HOME": f"{home}/.config",
                "XDG_STATE_HOME": f"{home}/.local/state", **tool.environment(self)}


class Tool:
    name = ""
    # A second backup of the same source makes use of the first.
    is_incremental = True
    # The target of a restore has to exist.
    needs_target = False

    def __init__(self, arguments):
        self.arguments = arguments
        self.program = self.find()

    def find(self):
        beside = self.arguments.peers / self.name
        return beside if beside.exists() else self.name

    def version(self):
        return first_line([self.program, "--version"])

    def environment(self, place):
        return {}

    def init(self, place):
        return []

    def backup(self, place, source, corpus):
        raise NotImplementedError

    def restore(self, place, source, corpus, target):
        raise NotImplementedError

    def restored(self, target, source, corpus):
        """Where below `target` the source's copy is."""
        return target

    def check(self, place):
        """Reads and verifies all data; None where there is no such thing."""
        return None

    def list(self, place):
        """Names the snapshots: what opening a repository costs, the stretching of a passphrase included."""
        return None


class Backup(Tool):
    name = "backup"

    def find(self):
        return self.arguments.backup.resolve()

    def command(self, place, *words):
        secret = ["--key-file", place.key] if self.arguments.unlock == "key" else ["--passphrase-file", place.passphrase]
        return [self.program, *words[:1], "--repo", place.repository, *secret, *words[1:]]

    def init(self, place):
        # Makes the key file, too.
        return [self.command(place, "init")]

    def backup(self, place, source, corpus):
        return self.command(place, "backup", source, "--name", corpus)

    def restore(self, place, source, corpus, target):
        return self.command(place, "restore", f"latest:{corpus}", target)

    def check(self, place):
        return self.command(place, "verify", "--data")

    def list(self, place):
        return self.command(place, "snapshots")


class Rustic(Tool):
    """restic's format. With a passphrase, scrypt takes 0.3 s of each command; with a key file, nothing does, as with ours."""

    name = "rustic"

    def command(self, place, *words):
        secret = ["--key-file", place.key] if self.arguments.unlock == "key" else ["--password-file", place.passphrase]
        return [self.program, "-r", place.repository, *secret, "--no-progress", *words]

    def init(self, place):
        by_passphrase = [self.program, "-r", place.repository, "--password-file", place.passphrase, "--no-progress"]
        commands = [[*by_passphrase, "init", "--set-compression", "3"]]
        if self.arguments.unlock == "key":
            commands.append([*by_passphrase, "key", "export", place.key])
        return commands

    def backup(self, place, source, corpus):
        return self.command(place, "backup", source)

    def restore(self, place, source, corpus, target):
        sparse = ["--sparse", "by-content"] if corpus.startswith("image") else []
        return self.command(place, "restore", "latest", target, *sparse)

    def restored(self, target, source, corpus):
        return target / str(source).lstrip("/")

    def check(self, place):
        return self.command(place, "check", "--read-data")

    def list(self, place):
        return self.command(place, "snapshots")


class Restic(Tool):
    """Its default compression is zstd's default, which is 3. Restores sparsely from 0.15 on. Knows only passphrases."""

    name = "restic"

    def __init__(self, arguments):
        super().__init__(arguments)
        text = subprocess.run([self.program, "restore", "--help"], capture_output=True, text=True).stdout
        self.sparse = ["--sparse"] if "--sparse" in text else []

    def version(self):
        return first_line([self.program, "version"])

    def command(self, place, *words):
        return [self.program, "-q", "-r", place.repository, "--password-file", place.passphrase, *words]

    def init(self, place):
        return [self.command(place, "init", "--repository-version", "2")]

    def backup(self, place, source, corpus):
        return self.command(place, "backup", "--compression", "auto", source)

    def restore(self, place, source, corpus, target):
        sparse = self.sparse if corpus.startswith("image") else []
        return self.command(place, "restore", "latest", "--target", target, *sparse)

    def restored(self, target, source, corpus):
        return target / str(source).lstrip("/")

    def check(self, place):
        return self.command(place, "check", "--read-data")

    def list(self, place):
        return self.command(place, "snapshots")


class Bupstash(Tool):
    """A key file; the default send log, which is what makes its second backup fast. No sparse restore, no check.

    By default it stores no extended attributes and restores no owners: less than the others do, and left so.
    """

    name = "bupstash"
    needs_target = True

    def version(self):
        return first_line([self.program, "version"])

    def environment(self, place):
        return {"BUPSTASH_REPOSITORY": str(place.repository), "BUPSTASH_KEY": str(place.key)}

    def init(self, place):
        return [[self.program, "init", "-q"], [self.program, "new-key", "-o", place.key]]

    def backup(self, place, source, corpus):
        return [self.program, "put", "-q", "--compression", "zstd:3", f"name={corpus}", source]

    def restore(self, place, source, corpus, target):
        # `put` printed the item's id: it is the newest of its name.
        if corpus.startswith("image"):
            return shell(f"{quote(self.program)} get -q id={place.last_line} > {quote(target / corpus)}")
        return [self.program, "restore", "-q", "--into", target, f"id={place.last_line}"]

    def restored(self, target, source, corpus):
        return target / corpus if corpus.startswith("image") else target

    def list(self, place):
        return [self.program, "list", "-q"]


class Borg(Tool):
    """Repokey mode with a passphrase: key files of borg have one, too."""

    name = "borg"
    needs_target = True

    def environment(self, place):
        return {"BORG_PASSPHRASE": PASSPHRASE, "BORG_REPO": str(place.repository), "BORG_BASE_DIR": str(place.root / "home")}

    def init(self, place):
        return [[self.program, "init", "-e", "repokey-blake2"]]

    def backup(self, place, source, corpus):
        place.backups += 1
        return [self.program, "create", "--compression", "zstd,3", f"::{corpus}-{place.backups}", source]

    def restore(self, place, source, corpus, target):
        sparse = "--sparse" if corpus.startswith("image") else ""
        return shell(f"cd {quote(target)} && exec {quote(self.program)} extract {sparse} ::{corpus}-{place.backups}")

    def restored(self, target, source, corpus):
        return target / str(source).lstrip("/")

    def check(self, place):
        return [self.program, "check", "--verify-data"]

    def list(self, place):
        return [self.program, "list"]


class Tar(Tool):
    """tar + zstd -3 -T2: no encryption, no dedup, nothing incremental. The floor, not a competitor."""

    name = "tar"
    is_incremental = False
    needs_target = True

    def find(self):
        return "tar"

    def version(self):
        return f"{first_line(['tar', '--version'])}, zstd {first_line(['zstd', '--version']).split(',')[0].split()[-1]}"

    def backup(self, place, source, corpus):
        place.repository.mkdir(exist_ok=True)
        sparse = "-S" if corpus.startswith("image") else ""
        archive = place.repository / f"{corpus}.tar.zst"
        return shell(f"tar -C {quote(source.parent)} {sparse} -cf - {corpus} | zstd -q -f -3 -T2 -o {quote(archive)}")

    def restore(self, place, source, corpus, target):
        archive = place.repository / f"{corpus}.tar.zst"
        return shell(f"zstd -q -dc {quote(archive)} | tar -C {quote(target)} -xf -")

    def restored(self, target, source, corpus):
        return target / corpus


def shell(command):
    return ["bash", "-o", "pipefail", "-c", command]


def quote(path):
    return shlex.quote(str(path))


def first_line(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[0].strip()


TOOLS = {tool.name: tool for tool in (Backup, Rustic, Bupstash, Restic, Borg, Tar)}

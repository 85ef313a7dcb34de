#!/usr/bin/env python3
"""Compares `backup` with other backup programs: whole processes, side by side, in one run. See README.md.

    python3 compare.py --corpora DIR --work DIR --backup target/release/backup [--tools …] [--corpus …] [--runs N]

Each run takes every operation tool by tool (A B C, then A B C again), in an order that turns by one with every run; ratios are
of figures of the same run. Prints tables in Markdown, writes all figures to WORK/results.json.
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.dont_write_bytecode = True  # this directory is under version control
import tools as peers

OPERATIONS = ("first", "unchanged", "restore", "check", "list")
CORPORA = ("image", "tree", "small", "media")
# Corpora of a few large files: what is restored of them is deleted at once, as that frees few inodes (see `Aside`).
LARGE_FILES = ("image", "media")
SIZE_SETS = {
    "image + next + sibling": ("image", "image-next", "image-sibling"),
    "tree + next": ("tree", "tree-next"),
    "small": ("small",),
    "media": ("media",),
}

# What this project set itself: (corpus, operation, peer) -> ours ÷ peer, at most.
TARGETS = {
    ("image", "first", "rustic"): 0.6,
    ("image", "restore", "rustic"): 0.65,
    ("image", "check", "rustic"): 0.6,
    ("tree", "first", "bupstash"): 0.75,
    ("tree", "unchanged", "bupstash"): 0.9,
    ("tree", "restore", "bupstash"): 0.7,
    ("small", "first", "bupstash"): 0.9,
    ("small", "unchanged", "bupstash"): 0.9,
    ("small", "restore", "bupstash"): 0.75,
    ("media", "first", "bupstash"): 0.65,
}
SIZE_TARGETS = {
    ("image + next + sibling", "rustic"): 0.88,
    ("tree + next", "rustic"): 0.8,
    ("small", "bupstash"): 0.9,
}
PEAK_MIB_MAX = 256

TIMEOUT_SECONDS = 1_800
# ext4 without a journal does not reuse an inode for 60 s after its deletion (300 s more while it is unwritten, hence the
# sync before): it searches past all of them instead, for each new file. Source: fs/ext4/ialloc.c, `recently_deleted`.
SETTLE_SECONDS = 70


@dataclass
class Measure:
    corpus: str
    operation: str
    tool: str
    run: int
    wall_seconds: float
    cpu_seconds: float
    # The largest single process; never below what Python itself has (about 20 MiB), as a child begins with its parent's peak.
    peak_mib: float
    # What a `sync` took afterwards: the part of the work that the program left to the system.
    sync_seconds: float
    stored_bytes: int | None = None


@dataclass
class Size:
    set: str
    tool: str
    bytes: int
    objects: int
    # After each source of the set.
    bytes_after: dict


def main():
    arguments = parse_arguments()
    if arguments.equal:
        return print_differences(*arguments.equal)
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    chosen = [peers.TOOLS[name](arguments) for name in arguments.tools]
    session = Session(arguments, chosen, work)
    try:
        for corpus in arguments.corpus:
            if corpus == "sizes":
                session.take_sizes()
            else:
                for run in range(arguments.runs):
                    session.take_run(corpus, run)
                    session.save()
    except KeyboardInterrupt:
        say("interrupted: what was measured is printed")
    finally:
        text = Report(session).text()
        session.save()
        (work / "results.md").write_text(text)
        print(text)
        if not arguments.keep:
            session.aside.empty()
    return 1 if session.failures else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="compares backup with other backup programs")
    parser.add_argument("--corpora", type=Path, help="what corpora.py built")
    parser.add_argument("--work", type=Path, help="an empty directory on the disk to measure")
    parser.add_argument("--backup", type=Path, help="our program")
    parser.add_argument("--peers", type=Path, default=Path("/opt/peers/bin"), help="where rustic and bupstash are, if not in PATH")
    parser.add_argument("--tools", default="backup,rustic,bupstash,restic,tar", help="also: borg")
    parser.add_argument("--corpus", default="image,tree,small,media,sizes")
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--unlock", choices=("key", "passphrase"), default="key", help="how ours and rustic open a repository")
    parser.add_argument("--disk-gb", type=float, default=14, help="delete between runs when the work directory exceeds this")
    parser.add_argument("--keep", action="store_true", help="delete nothing at the end")
    parser.add_argument("--equal", nargs=2, metavar="PATH", help="only compare two trees or files, and say how they differ")
    arguments = parser.parse_args()
    if arguments.equal:
        return arguments
    for name in ("tools", "corpus", "operations"):
        setattr(arguments, name, getattr(arguments, name).split(","))
    if not arguments.corpora or not arguments.work:
        parser.error("--corpora and --work are needed")
    if "backup" in arguments.tools and not arguments.backup:
        parser.error("--backup is needed")
    for name, known in (("tools", peers.TOOLS), ("corpus", CORPORA + ("sizes",)), ("operations", OPERATIONS)):
        for value in getattr(arguments, name):
            if value not in known:
                parser.error(f"--{name}: {value} is none of {', '.join(known)}")
    arguments.corpora = arguments.corpora.resolve()
    return arguments


class Session:
    """What is measured, in order."""

    def __init__(self, arguments, chosen, work):
        self.arguments = arguments
        self.tools = chosen
        self.work = work
        self.aside = Aside(work, arguments.disk_gb * 1e9)
        self.measures = []
        self.sizes = []
        self.failures = []
        self.notes = []
        self.compared = set()
        self.machine = describe_machine(work)
        self.versions = {tool.name: tool.version() for tool in chosen}

    def take_run(self, corpus, run):
        source = self.arguments.corpora / corpus
        turn = run % len(self.tools)
        order = self.tools[turn:] + self.tools[:turn]
        self.aside.make_room()
        places = {}
        for tool in order:
            places[tool] = self.new_place(tool, corpus, run)
            for command in tool.init(places[tool]):
                self.execute(tool, places[tool], command, f"{corpus}/init")
        for operation in OPERATIONS:
            if operation not in self.arguments.operations and operation != "first":
                continue
            for tool in order:
                if tool in places and not self.take(tool, places[tool], corpus, source, operation, run):
                    # The tool failed: what comes next would measure nothing.
                    self.aside.move(places.pop(tool).root)
        for place in places.values():
            self.aside.move(place.root)

    def take(self, tool, place, corpus, source, operation, run):
        """One measured command. False when it failed."""
        if operation in ("first", "unchanged"):
            command = tool.backup(place, source, corpus)
            if operation == "unchanged" and not tool.is_incremental:
                return True
            warm = source
        else:
            target = place.root / "restored"
            command = {"restore": lambda: tool.restore(place, source, corpus, target), "check": lambda: tool.check(place),
                       "list": lambda: tool.list(place)}[operation]()
            warm = place.repository
        if command is None:
            return True
        if operation == "restore" and tool.needs_target:
            target.mkdir()
        read_all(warm)
        os.sync()
        measured = self.execute(tool, place, command, f"{corpus}/{operation}")
        if measured is None:
            return False
        began = time.monotonic()
        os.sync()
        measure = Measure(corpus, operation, tool.name, run, *measured, sync_seconds=time.monotonic() - began)
        if operation in ("first", "unchanged"):
            measure.stored_bytes = stored(place.repository)[0]
        self.measures.append(measure)
        say(f"{corpus:6} {operation:9} run {run + 1} {tool.name:9} {measure.wall_seconds:7.2f} s  cpu {measure.cpu_seconds:7.2f} s  "
            f"peak {measure.peak_mib:7.1f} MiB  sync {measure.sync_seconds:5.2f} s")
        if operation == "restore":
            self.look_at_restored(tool, corpus, source, tool.restored(target, source, corpus))
            self.aside.move(target, at_once=corpus in LARGE_FILES)
        return True

    def look_at_restored(self, tool, corpus, source, restored):
        """Ours is compared every time, others once a corpus. Not here but in a process of its own, which keeps us small."""
        if tool.name != "backup" and (tool.name, corpus) in self.compared:
            return
        self.compared.add((tool.name, corpus))
        command = [sys.executable, __file__, "--equal", str(source), str(restored)]
        done = subprocess.run(command, capture_output=True, text=True)
        note = f"{tool.name} {corpus}: restored {done.stdout.strip()}{done.stderr.strip()}"
        if note not in self.notes:
            self.notes.append(note)
        if done.returncode != 0:
            self.failures.append(note)
            say(f"FAILED {note}")

    def take_sizes(self):
        for set_name, corpora in SIZE_SETS.items():
            self.aside.make_room()
            for tool in self.tools:
                place = self.new_place(tool, "sizes", 0)
                for command in tool.init(place):
                    self.execute(tool, place, command, "sizes/init")
                after = {}
                for corpus in corpora:
                    command = tool.backup(place, self.arguments.corpora / corpus, corpus)
                    if self.execute(tool, place, command, f"sizes/{corpus}") is None:
                        break
                    after[corpus] = stored(place.repository)[0]
                else:
                    total, objects = stored(place.repository)
                    self.sizes.append(Size(set_name, tool.name, total, objects, after))
                    say(f"sizes: {set_name}: {tool.name} {total:,} bytes in {objects:,} objects")
                self.aside.move(place.root)
            self.save()

    def new_place(self, tool, corpus, run):
        place = peers.Place(self.work / "now" / f"{corpus}-{run}-{tool.name}")
        if place.root.exists():
            self.aside.move(place.root)
        place.make()
        return place

    def execute(self, tool, place, command, what):
        """Runs to the end; (wall, CPU, peak MiB), or None when it failed."""
        command = [str(word) for word in command]
        out, errors = place.root / "stdout", place.root / "stderr"
        with open(out, "wb") as stdout, open(errors, "wb") as stderr:
            began = time.monotonic()
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=place.root, env=place.environment(tool),
                start_new_session=True,
            )
            status, usage = wait(child.pid)
            wall = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            tail = errors.read_text(errors="replace")[-600:]
            failure = f"{tool.name} {what}: exit status {child.returncode}: {' '.join(command)}\n{tail}"
            self.failures.append(failure)
            say(f"FAILED {failure}")
            return None
        place.last_line = (out.read_text(errors="replace").strip().splitlines() or [""])[-1]
        return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def save(self):
        results = {
            "machine": self.machine,
            "versions": self.versions,
            "unlock": self.arguments.unlock,
            "runs": self.arguments.runs,
            "measures": [asdict(measure) for measure in self.measures],
            "sizes": [asdict(size) for size in self.sizes],
            "notes": self.notes,
            "failures": self.failures,
        }
        unfinished = self.work / "results.json.unfinished"
        unfinished.write_text(json.dumps(results, indent=1) + "\n")
        unfinished.rename(self.work / "results.json")


class Aside:
    """Where finished repositories and restored trees wait for the end: deleting many files slows down what creates some next."""

    def __init__(self, work, budget):
        self.directory = work / "aside"
        self.budget = budget
        self.number = 0
        self.empty()

    def move(self, path, at_once=False):
        if not path.exists():
            return
        if at_once:
            delete(path)
            return
        self.directory.mkdir(exist_ok=True)
        self.number += 1
        path.rename(self.directory / f"{self.number:04}-{path.name}")

    def make_room(self):
        """Called between runs, so that all tools of a run find the same disk."""
        if not self.directory.exists() or allocated(self.directory.parent) < self.budget:
            return
        say(f"the work directory exceeds its budget: deleting, then waiting {SETTLE_SECONDS} s")
        self.empty()
        os.sync()
        time.sleep(SETTLE_SECONDS)

    def empty(self):
        if self.directory.exists():
            delete(self.directory)


def wait(pid):
    """Waits for a process, whose whole session ends when it takes too long."""

    def end(*_):
        os.killpg(pid, signal.SIGKILL)

    old = signal.signal(signal.SIGALRM, end)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        _, status, usage = os.wait4(pid, 0)
    except KeyboardInterrupt:
        end()
        os.wait4(pid, 0)
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    return status, usage


# ---- what is printed ----


class Report:
    def __init__(self, session):
        self.session = session
        self.names = [tool.name for tool in session.tools]
        self.lines = []

    def text(self):
        self.lines = []
        machine = self.session.machine
        self.line(f"{machine['date']}, {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']:.0f} GiB, "
                  f"{machine['filesystem']}, Linux {machine['kernel']}; load at the start {machine['load']:.1f}. "
                  f"Median (least–most) of {self.session.arguments.runs} runs. Ours and rustic open by {self.session.arguments.unlock}.")
        self.line("Versions: " + "; ".join(f"{name}: {version}" for name, version in self.session.versions.items()) + ".")
        for corpus in CORPORA:
            if any(measure.corpus == corpus for measure in self.session.measures):
                self.corpus(corpus)
        if "backup" in self.names and self.session.measures:
            self.ratios()
        self.peaks()
        if self.session.sizes:
            self.sizes()
        for title, lines in (("Restored", self.session.notes), ("Failures", self.session.failures)):
            if lines:
                self.heading(title)
                self.lines += [f"- {line}" for line in lines]
        return "\n".join(self.lines) + "\n"

    def corpus(self, corpus):
        for title, field, digits in (("seconds", "wall_seconds", 2), ("CPU seconds (user + system)", "cpu_seconds", 2),
                                     ("peak MiB of the largest process", "peak_mib", 0),
                                     ("seconds of a sync afterwards", "sync_seconds", 2)):
            shown = [operation for operation in OPERATIONS if any(self.by_run(corpus, operation, name) for name in self.names)]
            rows = []
            for name in self.names:
                cells = []
                for operation in shown:
                    values = [getattr(measure, field) for measure in self.by_run(corpus, operation, name).values()]
                    cells.append(spread(values, digits))
                rows.append([name, *cells])
            self.heading(f"{corpus}: {title}")
            self.table(["", *shown], rows)

    def ratios(self):
        rows = []
        for corpus in CORPORA:
            for operation in OPERATIONS:
                ours = self.by_run(corpus, operation, "backup")
                for peer in self.names:
                    theirs = self.by_run(corpus, operation, peer)
                    both = sorted(ours.keys() & theirs.keys())
                    if peer == "backup" or not both:
                        continue
                    values = [ours[run].wall_seconds / theirs[run].wall_seconds for run in both]
                    target = TARGETS.get((corpus, operation, peer))
                    rows.append([corpus, operation, peer, spread(values, 2), *verdict(statistics.median(values), target)])
        self.heading("Ours ÷ theirs, wall time, by run")
        self.table(["corpus", "operation", "peer", "ratio", "target", ""], rows)

    def peaks(self):
        rows = []
        for name in self.names:
            measures = [measure for measure in self.session.measures if measure.tool == name]
            if measures:
                most = max(measures, key=lambda measure: measure.peak_mib)
                target = PEAK_MIB_MAX if name == "backup" else None
                rows.append([name, f"{most.peak_mib:.0f}", f"{most.corpus} {most.operation}", *verdict(most.peak_mib, target)])
        if rows:
            self.heading("Peak MiB over everything")
            self.table(["", "MiB", "where", "target", ""], rows)

    def sizes(self):
        rows = []
        for set_name in SIZE_SETS:
            sizes = {size.tool: size for size in self.session.sizes if size.set == set_name}
            for name, size in sizes.items():
                ratio, target = "", ["", ""]
                if "backup" in sizes and name != "backup":
                    value = sizes["backup"].bytes / size.bytes
                    ratio, target = f"{value:.3f}", verdict(value, SIZE_TARGETS.get((set_name, name)))
                steps = " / ".join(f"{value / 1e6:,.1f}" for value in size.bytes_after.values())
                rows.append([set_name, name, f"{size.bytes:,}", f"{size.objects:,}", steps, ratio, *target])
        self.heading("Stored bytes, all objects counted")
        self.table(["corpora", "", "bytes", "objects", "MB after each", "ours ÷ theirs", "target", ""], rows)

    def by_run(self, corpus, operation, name):
        return {
            measure.run: measure
            for measure in self.session.measures
            if (measure.corpus, measure.operation, measure.tool) == (corpus, operation, name)
        }

    def heading(self, text):
        self.lines += ["", f"### {text}", ""]

    def line(self, text):
        self.lines += [text, ""]

    def table(self, head, rows):
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|" + "---|" * len(head))
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]


def spread(values, digits):
    if not values:
        return "–"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def verdict(value, target):
    if target is None:
        return ["", ""]
    return [f"≤ {target}", "reached" if value <= target else "**missed**"]


# ---- files ----


def stored(repository):
    """Bytes and number of all files of a repository."""
    total = objects = 0
    for directory, _, files in os.walk(repository):
        for name in files:
            total += os.lstat(os.path.join(directory, name)).st_size
            objects += 1
    return total, objects


def allocated(path):
    output = subprocess.run(["du", "-s", "--block-size=1", path], capture_output=True, text=True).stdout
    return int(output.split()[0])


def read_all(path):
    """Brings a tree into the page cache."""
    subprocess.run(["bash", "-c", 'find "$1" -type f -print0 | xargs -0 -r cat > /dev/null', "bash", path], check=True)


def delete(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def print_differences(expected, found):
    """One line for people; exit status 1 when names, types or contents differ. Metadata is counted: tools keep more or less of it."""
    comparison = Comparison()
    comparison.compare(expected, found)
    metadata = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(comparison.metadata.items())) or "same metadata"
    result = "DIFFERENT" if comparison.contents else "equal"
    text = f"{result} ({comparison.files:,} files, {comparison.bytes:,} bytes; {metadata}; {comparison.allocated:,} bytes allocated)"
    print("; ".join([text, *comparison.contents[:5]]))
    return 1 if comparison.contents else 0


class Comparison:
    def __init__(self):
        self.files = self.bytes = self.allocated = 0
        self.contents = []
        self.metadata = {}

    def compare(self, expected, found):
        if not os.path.lexists(found):
            self.contents.append(f"{found} is missing")
            return
        a, b = os.lstat(expected), os.lstat(found)
        if a.st_mode >> 12 != b.st_mode >> 12:
            self.contents.append(f"{found} is of another type")
            return
        self.compare_metadata(expected, found, a, b)
        if os.path.islink(expected):
            if os.readlink(expected) != os.readlink(found):
                self.contents.append(f"{found} points elsewhere")
        elif os.path.isdir(expected):
            names, found_names = set(os.listdir(expected)), set(os.listdir(found))
            for name in sorted(found_names - names):
                self.contents.append(f"{found}/{name} is not in the source")
            for name in sorted(names):
                self.compare(os.path.join(expected, name), os.path.join(found, name))
        elif os.path.isfile(expected):
            self.files += 1
            self.bytes += a.st_size
            self.allocated += b.st_blocks * 512
            if not same_contents(expected, found):
                self.contents.append(f"{found} has other contents")

    def compare_metadata(self, expected, found, a, b):
        differs = {
            "other mode": a.st_mode != b.st_mode,
            "other owner": (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid),
            "other mtime": a.st_mtime_ns != b.st_mtime_ns,
            "other link count": a.st_nlink != b.st_nlink,
            "other xattrs": xattrs(expected) != xattrs(found),
        }
        for kind, is_different in differs.items():
            if is_different:
                self.metadata[kind] = self.metadata.get(kind, 0) + 1


def same_contents(expected, found):
    with open(expected, "rb", buffering=0) as a, open(found, "rb", buffering=0) as b:
        while True:
            x, y = a.read(1 << 20), b.read(1 << 20)
            if x != y:
                return False
            if not x:
                return True


def xattrs(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def describe_machine(work):
    processor = "unknown"
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":")[1].strip()
    mount = ["findmnt", "-n", "-o", "FSTYPE", "-T", work]
    filesystem = subprocess.run(mount, capture_output=True, text=True).stdout.strip()
    return {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "processor": processor,
        "memory_gib": memory_gib,
        "filesystem": filesystem,
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

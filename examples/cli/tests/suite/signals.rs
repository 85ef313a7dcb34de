use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Scratch, noise};

/// More than a pack, so that something is stored before the signal, whatever is done after it.
const FED_LEN: usize = 48 << 20;

#[test]
fn the_first_signal_stops_politely_and_the_next_run_goes_on() {
    let scratch = Scratch::with_repository();
    let bytes = noise(2 * FED_LEN, 5);
    for signal in [Signal::INT, Signal::TERM] {
        let mut run = Run::start(&scratch);
        run.stdin.write_all(&bytes[..FED_LEN]).unwrap();
        run.signal(signal);
        // The program ends although there is more to read; at some point nobody reads any more.
        let _ = run.stdin.write_all(&bytes[FED_LEN..]);
        let (status, said) = run.end();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("the next run goes on"), "{said}");
    }
    let none = scratch.run(["snapshots", "--json"]).expect(0).json();
    assert_eq!(none["snapshots"].as_array().unwrap().len(), 0);

    let mut command = scratch.command(["backup", "--name", "dump", "-", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let made = &made["snapshots"][0];
    assert_eq!(made["bytes"], 2 * FED_LEN);
    let new = made["bytes_new"].as_u64().unwrap() as usize;
    assert!(
        new < 2 * FED_LEN - FED_LEN / 2,
        "what was uploaded is found again: {new} new"
    );
    scratch.run(["verify", "--data"]).expect(0);
}

#[test]
fn the_second_signal_ends_at_once() {
    let scratch = Scratch::with_repository();
    // It waits for input that does not come.
    let mut run = Run::start(&scratch);
    run.stdin.write_all(b"beginning").unwrap();
    run.signal(Signal::INT);
    run.send(Signal::INT);
    let (status, said) = run.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    scratch.run(["verify"]).expect(0);
}

/// A backup of a stream, under way.
struct Run {
    child: Child,
    stdin: ChildStdin,
    stderr: BufReader<ChildStderr>,
}

impl Run {
    fn start(scratch: &Scratch) -> Self {
        let mut command = scratch.command(["backup", "--name", "dump", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut run = Self {
            child,
            stdin,
            stderr,
        };
        // More than fits the pipe: when it is written, the backup reads.
        run.stdin.write_all(&noise(9 << 20, 6)).unwrap();
        run
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits until the program says that it has seen it.
    fn signal(&mut self, signal: Signal) {
        self.send(signal);
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("stopping"), "{line}");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

//! A real S3 server on loopback, and a proxy before it that breaks what passes through.
#![allow(dead_code, reason = "each test binary uses what it needs")]

pub(crate) mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_backend_s3::{Credentials, Preset, S3Config};

/// A bucket of its own, empty, on the server of this test binary.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) server: SocketAddr,
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Self::with_headers("")
    }

    /// A bucket whose objects can be locked.
    pub(crate) fn with_lock() -> Self {
        Self::with_headers("x-amz-bucket-object-lock-enabled: true\r\n")
    }

    fn with_headers(headers: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bucket-{}-{number}", std::process::id());
        let server = server();
        let status = request(server, "PUT", &format!("/{name}"), headers);
        assert_eq!(status, 200, "the server makes no bucket");
        Self { name, server }
    }

    pub(crate) fn config(&self) -> S3Config {
        self.config_at(self.server)
    }

    /// The same bucket, reached through a proxy.
    pub(crate) fn config_at(&self, address: SocketAddr) -> S3Config {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret-of-the-test");
        let mut config = S3Config::new(Preset::Minio, self.name.as_str(), credentials);
        config.endpoint = Some(format!("http://{address}"));
        config
    }
}

/// Where the server of this test binary listens; started when first asked for, ended with the binary.
pub(crate) fn server() -> SocketAddr {
    static SERVER: OnceLock<(SocketAddr, Child)> = OnceLock::new();
    SERVER.get_or_init(start).0
}

#[allow(
    clippy::zombie_processes,
    reason = "it lives as long as this process, and ends with it"
)]
/// moto, from PyPI: its conditions are right; it compares no checksums.
fn start() -> (SocketAddr, Child) {
    let address = free_address();
    // The shell ends the server, by its pid, when the pipe from this process closes.
    let script = format!(
        "command -v moto_server >/dev/null || exit 127; \
         moto_server -H 127.0.0.1 -p {} >/dev/null 2>&1 & pid=$!; echo started; cat >/dev/null; kill $pid",
        address.port()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(
        line, "started\n",
        "moto_server is missing: scripts/test installs it, or: pip install 'moto[server]', with its place in PATH"
    );
    for _ in 0..300 {
        if TcpStream::connect(address).is_ok() {
            return (address, child);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("moto_server does not listen after 30 s");
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A bare request; returns the status.
fn request(server: SocketAddr, method: &str, path: &str, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(server).unwrap();
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=0";
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nAuthorization: {authorization}\r\n{headers}\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

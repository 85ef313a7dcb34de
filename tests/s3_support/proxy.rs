//! Stands between a client and a real server, request by request, and breaks what it is told to break.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The answer comes so much later.
    Delay(Duration),
    /// The connection ends after so many bytes of the request's body; the server never sees it whole.
    CutRequest(usize),
    /// The server does what was asked, and nobody hears of it.
    LoseAnswer,
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(usize),
    /// The server is not asked; an error comes back.
    Status(u16),
    /// As [`Fault::Status`], and says when to come again.
    Throttle {
        seconds: u64,
    },
    /// One bit of the request's body is another one.
    FlipRequest,
    /// One bit of the answer's body is another one.
    FlipAnswer,
    /// The server hears of no condition.
    Unconditional,
    /// A request with this header is refused, as by stores that do not know it.
    RefuseHeader(&'static str),
}

/// What the proxy is told of a request: its number from 0, its method and its path with the query.
pub(crate) type Plan = dyn Fn(u64, &str, &str) -> Fault + Send + Sync;

/// Listens on a free port until dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

struct Shared {
    server: SocketAddr,
    plan: Box<Plan>,
    requests: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) fn new(
        server: SocketAddr,
        plan: impl Fn(u64, &str, &str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let shared = Arc::new(Shared {
            server,
            plan: Box::new(plan),
            requests: requests.clone(),
        });
        let stopping = stop.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                if let Ok(client) = client {
                    std::thread::spawn(move || shared.serve(client));
                }
            }
        });
        Self {
            address,
            requests,
            stop,
        }
    }

    /// Requests that came in so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let _ = client.set_nodelay(true);
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut writer = client;
        while let Ok(Some(head)) = Head::read(&mut reader) {
            if !self
                .request(&head, &mut reader, &mut writer)
                .unwrap_or(false)
            {
                break;
            }
        }
        let _ = writer.shutdown(Shutdown::Both);
    }

    /// Passes one request on and its answer back; `false` when the connection is to end.
    fn request(
        &self,
        head: &Head,
        reader: &mut impl BufRead,
        writer: &mut TcpStream,
    ) -> io::Result<bool> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut words = head.first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let fault = (self.plan)(number, method, path);
        if head.has("expect", "100-continue") {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let Fault::CutRequest(len) = fault {
            io::copy(&mut reader.take(len as u64), &mut io::sink())?;
            return Ok(false);
        }
        let mut body = vec![0; head.content_len().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        if let Fault::RefuseHeader(name) = fault
            && head.field(name).is_some()
        {
            let document = format!(
                "<Error><Code>NotImplemented</Code><Message>Header '{name}' with value 'x' not implemented</Message></Error>"
            );
            let len = document.len();
            write!(
                writer,
                "HTTP/1.1 501 Refused\r\nContent-Length: {len}\r\n\r\n{document}"
            )?;
            return Ok(true);
        }
        let refusal = match fault {
            Fault::Status(status) => Some((status, String::new())),
            Fault::Throttle { seconds } => Some((503, format!("Retry-After: {seconds}\r\n"))),
            _ => None,
        };
        if let Some((status, headers)) = refusal {
            let document = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>by the proxy</Message></Error>";
            let document = if method == "HEAD" { "" } else { document };
            write!(
                writer,
                "HTTP/1.1 {status} Fault\r\n{headers}Content-Length: {}\r\n\r\n{document}",
                document.len()
            )?;
            return Ok(true);
        }
        if fault == Fault::FlipRequest {
            flip(&mut body);
        }
        let dropped: &[&str] = match fault {
            Fault::Unconditional => &["connection", "expect", "if-none-match"],
            _ => &["connection", "expect"],
        };
        let answer = self.ask(head, &body, dropped)?;
        match fault {
            Fault::LoseAnswer => return Ok(false),
            Fault::Delay(delay) => std::thread::sleep(delay),
            _ => {}
        }
        answer.write(writer, fault)
    }

    /// Asks the server, over a connection of its own.
    fn ask(&self, head: &Head, body: &[u8], dropped: &[&str]) -> io::Result<Answer> {
        let is_head = head.first.starts_with("HEAD ");
        let mut server = TcpStream::connect(self.server)?;
        server.set_nodelay(true)?;
        let mut text = format!("{}\r\n", head.first);
        for (name, value) in &head.fields {
            if !dropped.contains(&name.to_ascii_lowercase().as_str()) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str("Connection: close\r\n\r\n");
        server.write_all(text.as_bytes())?;
        server.write_all(body)?;
        let mut reader = BufReader::new(server);
        let head = loop {
            let head = Head::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if !head.first.contains(" 100 ") {
                break head;
            }
        };
        let mut body = Vec::new();
        if !is_head {
            if head.has("transfer-encoding", "chunked") {
                read_chunks(&mut reader, &mut body)?;
            } else {
                reader.read_to_end(&mut body)?;
            }
        }
        Ok(Answer {
            head,
            body,
            is_head,
        })
    }
}

struct Answer {
    head: Head,
    body: Vec<u8>,
    is_head: bool,
}

impl Answer {
    fn write(mut self, writer: &mut TcpStream, fault: Fault) -> io::Result<bool> {
        let mut text = format!("{}\r\n", self.head.first);
        let ours = ["connection", "transfer-encoding", "content-length"];
        for (name, value) in &self.head.fields {
            if !ours.contains(&name.to_ascii_lowercase().as_str()) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let len = if self.is_head {
            self.head.content_len().unwrap_or(0)
        } else {
            self.body.len()
        };
        text.push_str(&format!("Content-Length: {len}\r\n\r\n"));
        writer.write_all(text.as_bytes())?;
        match fault {
            Fault::CutAnswer(after) if after < self.body.len() => {
                writer.write_all(&self.body[..after])?;
                return Ok(false);
            }
            Fault::FlipAnswer => flip(&mut self.body),
            _ => {}
        }
        writer.write_all(&self.body)?;
        Ok(true)
    }
}

fn flip(body: &mut [u8]) {
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
}

/// The first line and the fields of a request or an answer.
struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// `None` when the connection has ended.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Some(Self {
            first: first.trim_end().to_owned(),
            fields,
        }))
    }

    fn field(&self, wanted: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.field(name)
            .is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    fn content_len(&self) -> Option<usize> {
        self.field("content-length")?.parse().ok()
    }
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let len = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + len, 0);
        reader.read_exact(&mut body[start..])?;
        reader.read_line(&mut line)?;
        if len == 0 {
            return Ok(());
        }
    }
}

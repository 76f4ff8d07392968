//! All statements of a loader to ClickHouse pass through here, and each can be held at a chosen
//! moment.
//!
//! So the campaign can kill a loader exactly before its intent, during an insert or after it, lose
//! an answer, or delay an insert. The tested program needs no hook. Each connection carries one
//! request, as its answer says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::ports::free_listener;

/// The beginning of an answer that is an error of ClickHouse.
const ERROR: &[u8; 10] = b"HTTP/1.1 5";

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The intent of a batch.
    Intent,
    /// One block into one table.
    Insert,
    /// The commit row and the ledgers of a batch.
    Commit,
}

/// The moment at which a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before ClickHouse has received any of it.
    Before,
    /// When ClickHouse has received the first half of its body.
    Amid,
    /// When ClickHouse has answered and the loader has not received the answer.
    After,
}

enum Verdict {
    Pass,
    Drop,
}

struct Order {
    statement: Statement,
    moment: Moment,
    /// Number of matching requests that pass first.
    skip: u32,
    hit: Sender<()>,
    verdict: Receiver<Verdict>,
}

/// A request that is held now or later. If this is dropped, the request is dropped too.
pub struct Hold {
    hit: Receiver<()>,
    verdict: Sender<Verdict>,
    orders: Arc<Mutex<Vec<Order>>>,
}

impl Hold {
    /// Waits until a request is held. Returns false after `within`; then none will be held.
    pub fn wait(&self, within: Duration) -> bool {
        if self.hit.recv_timeout(within).is_ok() {
            return true;
        }
        service::lock(&self.orders).clear();
        // It may have come between the two steps.
        self.hit.try_recv().is_ok()
    }

    /// Lets the request or its answer continue.
    pub fn pass(self) {
        let _ = self.verdict.send(Verdict::Pass);
    }

    /// Cuts the connection of the request.
    pub fn cut(self) {
        let _ = self.verdict.send(Verdict::Drop);
    }
}

/// The connection of one loader to ClickHouse.
pub struct Gateway {
    port: u16,
    orders: Arc<Mutex<Vec<Order>>>,
    errors: Arc<AtomicU64>,
}

impl Gateway {
    /// Listens, for a ClickHouse on this port.
    pub fn start(upstream: u16) -> Self {
        let listener = free_listener();
        let port = listener.local_addr().expect("it is bound").port();
        let orders: Arc<Mutex<Vec<Order>>> = Arc::default();
        let errors: Arc<AtomicU64> = Arc::default();
        let shared = (Arc::clone(&orders), Arc::clone(&errors));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (orders, errors) = shared.clone();
                thread::spawn(move || {
                    // Broken connections are the purpose of a campaign; the loader notices them.
                    let _ = serve(&client, upstream, &orders, &errors);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, orders, errors }
    }

    /// How often ClickHouse has answered with an error.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The address that the loader uses.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Holds a statement of this kind at this moment, after `skip` others.
    pub fn hold(&self, statement: Statement, moment: Moment, skip: u32) -> Hold {
        let ((hit, told), (verdict, decided)) = (channel(), channel());
        service::lock(&self.orders).push(Order { statement, moment, skip, hit, verdict: decided });
        Hold { hit: told, verdict, orders: Arc::clone(&self.orders) }
    }
}

fn serve(client: &TcpStream, upstream: u16, orders: &Mutex<Vec<Order>>, errors: &AtomicU64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let request = Request::read(client)?;
    let order = request.statement().and_then(|statement| take(orders, statement));
    let held_at = |moment| order.as_ref().filter(|order| order.moment == moment);
    if let Some(order) = held_at(Moment::Before)
        && !passes(order)
    {
        return Ok(());
    }
    let mut engine = TcpStream::connect(("127.0.0.1", upstream))?;
    engine.set_nodelay(true)?;
    engine.write_all(&request.head)?;
    let (first, rest) = request.body.split_at(request.body.len() / 2);
    engine.write_all(first)?;
    if let Some(order) = held_at(Moment::Amid) {
        // Gives ClickHouse time to read the first half.
        thread::sleep(Duration::from_millis(20));
        if !passes(order) {
            return engine.shutdown(Shutdown::Both);
        }
    }
    engine.write_all(rest)?;
    let mut client = client;
    if let Some(order) = held_at(Moment::After) {
        let mut answer = Vec::new();
        engine.read_to_end(&mut answer)?;
        return if passes(order) { client.write_all(&answer) } else { Ok(()) };
    }
    let mut begin = [0; ERROR.len()];
    engine.read_exact(&mut begin)?;
    errors.fetch_add(u64::from(&begin == ERROR), Ordering::Relaxed);
    client.write_all(&begin)?;
    io::copy(&mut engine, &mut client).map(drop)
}

/// The order that this statement fulfils, if any.
fn take(orders: &Mutex<Vec<Order>>, statement: Statement) -> Option<Order> {
    let mut orders = service::lock(orders);
    let index = orders.iter().position(|order| order.statement == statement)?;
    if orders[index].skip > 0 {
        orders[index].skip -= 1;
        return None;
    }
    Some(orders.remove(index))
}

/// Reports that the request is held, and waits for the decision about it.
fn passes(order: &Order) -> bool {
    order.hit.send(()).is_ok() && matches!(order.verdict.recv(), Ok(Verdict::Pass))
}

struct Request {
    /// The head, with `Connection: close`.
    head: Vec<u8>,
    /// The body as received, chunked or not.
    body: Vec<u8>,
    sql: String,
}

impl Request {
    fn read(client: &TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(client);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line);
        }
        let field = |name: &str| {
            let of = |line: &String| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            };
            lines.iter().find_map(of)
        };
        let body = match (field("transfer-encoding"), field("content-length")) {
            (Some(_), _) => chunks(&mut reader)?,
            (None, Some(length)) => {
                let mut body = vec![0; length.parse().map_err(|_| io::ErrorKind::InvalidData)?];
                reader.read_exact(&mut body)?;
                body
            }
            (None, None) => Vec::new(),
        };
        let target = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let asked = target.split(['?', '&']).find_map(|part| part.strip_prefix("query="));
        let sql = asked.map_or_else(|| String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned(), decoded);
        lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head = format!("{}Connection: close\r\n\r\n", lines.concat()).into_bytes();
        Ok(Self { head, body, sql })
    }

    fn statement(&self) -> Option<Statement> {
        let table = self.sql.split_once("INSERT INTO ")?.1.split([' ', '(']).next()?;
        Some(match table {
            "loader_intents" => Statement::Intent,
            "loader_commits" => Statement::Commit,
            _ if self.sql.ends_with("FORMAT ArrowStream") => Statement::Insert,
            _ => return None,
        })
    }
}

/// A chunked body with its sizes.
fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let from = body.len();
        reader.read_until(b'\n', &mut body)?;
        let line = String::from_utf8_lossy(&body[from..]).into_owned();
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let from = body.len();
        // With the line break after it; the last chunk is nothing else.
        body.resize(from + size + 2, 0);
        reader.read_exact(&mut body[from..])?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until a condition holds, checked every 20 ms. Returns false after `within`.
pub(super) fn holds(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An engine that echoes and counts requests.
    fn engine() -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
        let (port, seen): (_, Arc<Mutex<Vec<String>>>) = (listener.local_addr().expect("bound").port(), Arc::default());
        let taken = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&taken);
                // A thread that has half a request waits for the rest, and must not delay the
                // others.
                thread::spawn(move || {
                    let Ok(request) = Request::read(&stream) else { return };
                    taken.lock().expect("no panic").push(request.sql);
                    let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                });
            }
        });
        (port, seen)
    }

    fn ask(gateway: &Gateway, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).expect("connect");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn statements_pass_and_are_held_at_each_moment() {
        let (port, seen) = engine();
        let gateway = Gateway::start(port);
        let insert = "POST /?query=INSERT+INTO+injections+%28%60a%60%29+FORMAT+ArrowStream HTTP/1.1\r\n\
                      Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
        let sql = "INSERT INTO loader_intents (a) VALUES (1)";
        let intent = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{sql}", sql.len());
        assert!(ask(&gateway, insert).ends_with("ok"));
        assert!(ask(&gateway, &intent).ends_with("ok"));
        assert_eq!(*seen.lock().expect("no panic"), ["INSERT INTO injections (`a`) FORMAT ArrowStream", sql]);

        for (moment, reaches) in [(Moment::Before, 2), (Moment::Amid, 2), (Moment::After, 3)] {
            let hold = gateway.hold(Statement::Insert, moment, 0);
            thread::scope(|scope| {
                let asked = scope.spawn(|| ask(&gateway, insert));
                assert!(hold.wait(Duration::from_secs(10)), "{moment:?}");
                assert!(ask(&gateway, &intent).ends_with("ok"), "others pass meanwhile");
                seen.lock().expect("no panic").pop();
                hold.cut();
                assert_eq!(asked.join().expect("asked"), "", "{moment:?}");
            });
            assert_eq!(seen.lock().expect("no panic").len(), reaches, "{moment:?}");
        }
        let hold = gateway.hold(Statement::Commit, Moment::Before, 0);
        assert!(!hold.wait(Duration::from_millis(10)));
        assert!(ask(&gateway, insert).ends_with("ok"));
    }
}

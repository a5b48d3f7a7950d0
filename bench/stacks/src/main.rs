//! The stack use of ordinary crates.
//!
//! Each crate works on a fiber with a fresh stack. A snapshot then tells the deepest page in
//! memory.
//!
//! `cargo run` and `cargo run --release` each print one row of the table in the guide's chapter on
//! stacks.

use std::backtrace::Backtrace;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// The bytes of stack used by `work`, in whole pages, including the fiber's own use.
fn measured(work: fn()) -> usize {
    let fiber = FIBERS.builder().stack_size(64 << 20).build(move || {
        work();
        upcall::yield_now();
    });
    let mut fiber = pin!(fiber.expect("there is memory"));
    assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let snapshot = upcall::snapshot();
    let stacks = snapshot.threads.iter().flat_map(|thread| &thread.stacks);
    let deepest = stacks.filter(|stack| stack.fiber.is_some()).find_map(|stack| stack.deepest);
    assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    deepest.expect("a fiber has pages in memory")
}

/// Parses JSON with the deepest nesting allowed by serde_json.
fn json() {
    const DEPTH: usize = 127;
    let text = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    let maps = "{\"a\":".repeat(DEPTH) + "1" + &"}".repeat(DEPTH);
    let value: serde_json::Value = serde_json::from_str(&maps).unwrap();
    assert_eq!(value.to_string(), maps);
}

fn regular_expression() {
    let words = regex::Regex::new(r"(?i)\b(?<word>\p{Letter}+(?:[-'’]\p{Letter}+)*)\b").unwrap();
    assert_eq!(words.captures_iter("It’s a well-known, öffentlicher text").count(), 5);
}

fn log_line() {
    let subscriber = tracing_subscriber::fmt().with_env_filter("info").with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || {
        let _span = tracing::info_span!("request", id = 7, path = "/index").entered();
        tracing::info!(elapsed = ?std::time::Duration::from_millis(3), "answered {}", 200);
    });
    let json = tracing_subscriber::fmt().json().with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(json, || {
        let _span = tracing::info_span!("request", id = 7, path = "/index").entered();
        tracing::info!(elapsed = ?std::time::Duration::from_millis(3), "answered {}", 200);
    });
}

fn handshake() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client =
        ClientConnection::new(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut received = &wire[..];
        while !received.is_empty() {
            server.read_tls(&mut received).unwrap();
        }
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut received = &wire[..];
        while !received.is_empty() {
            client.read_tls(&mut received).unwrap();
        }
        client.process_new_packets().unwrap();
    }
    client.writer().write_all(b"hello").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets().unwrap();
    let mut hello = [0; 5];
    server.reader().read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
}

fn backtrace() {
    assert!(Backtrace::force_capture().to_string().contains("backtrace"));
}

/// Takes a second of samples with pprof, and resolves the names of functions.
fn profile() {
    let guard = pprof::ProfilerGuard::new(1000).unwrap();
    let began = std::time::Instant::now();
    let mut hash = 1u64;
    while began.elapsed().as_millis() < 300 {
        hash = std::hint::black_box(hash.wrapping_mul(31).rotate_left(5));
    }
    let report = guard.report().build().unwrap();
    std::hint::black_box(format!("{report:?}").len());
}

fn main() {
    let works: [(&str, fn()); 7] = [
        ("nothing", || ()),
        ("serde_json, 127 levels", json),
        ("regex, compiled and searched", regular_expression),
        ("tracing-subscriber, fmt and json", log_line),
        ("rustls, both sides of a handshake", handshake),
        ("std's backtrace, symbolised", backtrace),
        ("pprof's report, symbolised", profile),
    ];
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    for (name, work) in works {
        println!("{build} | {name} | {} KiB", measured(work) >> 10);
    }
}

//! A library by a user of hyper: it fetches pages, and looks synchronous to its hosts.

use std::error::Error;
use std::ffi::{c_char, c_int, c_uint};
use std::ptr::null_mut;
use std::sync::LazyLock;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use upcall::{arg, export, into_c_str, wait};

// SAFETY: no code here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(pages, fibers = FIBERS);

type Failure = Box<dyn Error + Send + Sync>;

/// The client of the process, with its idle connections.
static CLIENT: LazyLock<Client<HttpConnector, Empty<Bytes>>> =
    LazyLock::new(|| Client::builder(TokioExecutor::new()).build_http());

async fn fetch(url: Uri) -> Result<String, Failure> {
    let answer = CLIENT.get(url).await?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string().into());
    }
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.into())?)
}

/// Fetches a page by HTTP. Returns its text, to be freed by `pages_memory_free`; null on failure.
///
/// # Safety
/// `url` must be a C string.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pages_get(url: *const c_char) -> *mut c_char {
    // SAFETY: the caller guarantees that `url` is a C string.
    let url: Uri = unsafe { arg::str(url) }?.parse()?;
    Ok(into_c_str(wait(fetch(url))?)?)
}

/// Waits for some milliseconds by tokio's timer. Returns 0, or -1 if the host ends the wait.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn pages_nap(milliseconds: c_uint) -> c_int {
    wait(async { tokio::time::sleep(Duration::from_millis(milliseconds.into())).await });
    0
}

//! An HTTP client in Rust, made of hyper and tokio.

use std::ffi::{CStr, c_char, c_int};
use std::sync::LazyLock;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use upcall::{enter, wait};

use crate::host_calls::or_failed;

static CLIENT: LazyLock<Client<HttpConnector, Empty<Bytes>>> =
    LazyLock::new(|| Client::builder(TokioExecutor::new()).build_http());

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn fetch(url: &str) -> Result<Bytes, Error> {
    let answer = CLIENT.get(url.parse()?).await?;
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// Fetches a page into `page`. Returns its length.
///
/// # Safety
/// `url` must be a C string, and `page` valid for writes of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_fetch(url: *const c_char, page: *mut u8, size: usize) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller guarantees that `url` is a C string.
        let url = unsafe { CStr::from_ptr(url) }.to_str().expect("UTF-8");
        let bytes = wait(fetch(url)).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(bytes.len() <= size, "{url}: {} bytes are too many", bytes.len());
        // SAFETY: the caller guarantees that `page` is valid for writes of `size` bytes.
        unsafe { page.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        bytes.len() as c_int
    }))
}

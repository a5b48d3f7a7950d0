//! Asynchronous functions exported by UniFFI. C polls them through the generated scaffolding.

#![allow(missing_docs, reason = "UniFFI generates undocumented functions")]

uniffi::setup_scaffolding!();

#[uniffi::export]
async fn ready() -> i64 {
    benchtasks_common::ready().await
}

#[uniffi::export]
async fn yields() -> i64 {
    benchtasks_common::yields().await
}

#[uniffi::export]
async fn waits() -> i64 {
    benchtasks_common::waits().await
}

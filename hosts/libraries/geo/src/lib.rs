//! A library with upcall inside. Its C names begin with `geo_`.

#[path = "../../library.rs"]
#[macro_use]
mod library;
mod lookups;

library!(geo: geo_call geo_panic geo_is_in_place geo_on_worker geo_threads);

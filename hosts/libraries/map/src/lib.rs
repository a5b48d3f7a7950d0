//! A library with upcall inside. Its C names begin with `map_`.

#[path = "../../library.rs"]
#[macro_use]
mod library;

library!(map: map_call map_panic map_is_in_place map_on_worker map_threads);

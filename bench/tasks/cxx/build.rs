//! Compiles the bridge and the C++ coroutine.

fn main() {
    let include = std::env::var("DEP_CXX_ASYNC_INCLUDE").expect("the headers of cxx-async");
    let mut build = cxx_build::bridge("src/lib.rs");
    build.file("src/coroutine.cc").std("c++20").include(include).include("src").include("../c");
    build.flag_if_supported("-fcoroutines").warnings(false).compile("benchtasks-coroutine");
    for file in ["src/lib.rs", "src/coroutine.cc", "src/operations.h", "../c/detached.hpp"] {
        println!("cargo:rerun-if-changed={file}");
    }
}

/// Always `None`: C++ runtimes are not looked for on this system.
pub fn cpp_runtime() -> Option<usize> {
    None
}

//! Settings, in one possible order: a process can install them only once.

use upcall::{ConfigError, ForeignStacks, config, enter};

#[test]
fn settings_are_installed_once_and_before_use() {
    assert_eq!(config().min_stack(100).install(), Err(ConfigError::MinStack { bytes: 100 }));
    assert_eq!(config().min_stack(2 << 30).install(), Err(ConfigError::MinStack { bytes: 2 << 30 }));
    config().min_stack(1 << 20).foreign_stacks(ForeignStacks::Report).install().unwrap();
    assert_eq!(config().install(), Err(ConfigError::AlreadyInstalled));
    // The test's own thread has 2 MiB. A smaller thread's upcall gets a pooled stack of the size
    // requested.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let left = small.spawn(|| enter(|| stackbounds::remaining().unwrap()).unwrap()).unwrap().join().unwrap();
    assert!(left >= 1 << 20, "{left} bytes left");
    assert_eq!(config().install(), Err(ConfigError::InUse));
    let message = ConfigError::InUse.to_string();
    assert!(message.contains("before the first upcall"), "{message}");
}

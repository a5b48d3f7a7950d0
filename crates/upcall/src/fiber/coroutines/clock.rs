//! Moments in one word, for other threads to read.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The moment from which [`now`] counts.
///
/// First called with a lock that is held during forks: a child would wait for ever for a thread of
/// its parent that was initialising the cell.
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Milliseconds since [`start`]; after 49 days, it begins anew.
pub(super) fn now() -> u32 {
    start().elapsed().as_millis() as u32
}

/// The time between two moments of [`now`]; zero if `since` is the later one.
///
/// It may be: another thread may have stored it after the caller asked for `now`.
pub(super) fn elapsed(since: u32, now: u32) -> Duration {
    let milliseconds = now.wrapping_sub(since);
    if milliseconds > u32::MAX / 2 { Duration::ZERO } else { Duration::from_millis(milliseconds.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_no_long_time_ago() {
        assert_eq!(elapsed(1, 0), Duration::ZERO);
        assert_eq!(elapsed(5, 12), Duration::from_millis(7));
        assert_eq!(elapsed(u32::MAX, 1), Duration::from_millis(2));
    }
}

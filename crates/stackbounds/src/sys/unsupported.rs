//! A platform that does not say where a thread's stack is, or `--cfg stackbounds_no_query`: bounds
//! are estimated, except on registered stacks.

use super::ThreadStack;

pub(crate) fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    None
}

pub(crate) fn on_alternate_stack(_sp: usize) -> bool {
    false
}

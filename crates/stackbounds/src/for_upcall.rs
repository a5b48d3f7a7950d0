//! The functions and types made for the crate `upcall`, which alone may use them.
//!
//! They are no part of the interface of `stackbounds`, and may change in every version.

pub use crate::cache::{around, known, own as thread_at, verify};
pub use crate::fork::{
    Condition, Guard, Identity, Lock, Participant, Whose, Word, is_untold, notice_child, resume_in_child,
    settle_child,
};
pub use crate::registration::register_slots;
pub use crate::registry::{Around, RangeKind, described, holds_lock, version};
use crate::sys::TELLS_OF_STACK_IN_USE;
pub use crate::sys::isa::{code_pointer, valgrind};
pub use crate::sys::{Ended, on_alternate_stack, sleep_while, wake};
use crate::{fork, registry};

/// Asks for the thread's own stack, if the system answers for the stack in use only.
///
/// To be called before a switch to another stack, where [`thread_at`] would get a wrong answer. On
/// other systems, it does nothing: the question may need more stack than there is.
#[inline(always)]
pub fn ask_before_switch(sp: usize) {
    if TELLS_OF_STACK_IN_USE {
        let _ = thread_at(sp);
    }
}

/// Makes a participant take part in all later forks. To be called once for each.
///
/// # Panics
/// If there are eight already.
pub fn take_part_in_forks(participant: &'static Participant) {
    fork::join(participant, registry::lock_word());
}

//! The unwinder of 64-bit Windows. It looks functions up in the tables of their modules.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, IMAGE_RUNTIME_FUNCTION_ENTRY, RtlCaptureContext, RtlLookupFunctionEntry, RtlVirtualUnwind,
    UNW_FLAG_NHANDLER,
};

use super::Frame;

/// Calls `step` for each frame of the calling thread, innermost first, until `step` returns false.
///
/// The walk ends at a made-up frame, and at one without unwind information: only the innermost
/// function may have none.
#[inline(never)]
pub(crate) fn walk(step: &mut dyn FnMut(Frame) -> bool) {
    let mut context = MaybeUninit::<CONTEXT>::zeroed();
    // SAFETY: the call fills the context, whose type has the alignment that it needs.
    let mut context = unsafe {
        RtlCaptureContext(context.as_mut_ptr());
        context.assume_init()
    };
    while let Some((image, function)) = lookup(context.Rip as usize) {
        let start = start_of(image, function);
        let is_made_up = start == context.Rip as usize;
        let frame = Frame { function: start, sp: context.Rsp as usize, calls_handler: false, is_made_up };
        if frame.is_made_up || !step(frame) {
            return;
        }
        let (mut handler_data, mut established) = (ptr::null_mut(), 0);
        // SAFETY: the context is that of a live frame of this thread, in the function looked up.
        // Every pointer is valid for writing.
        unsafe {
            RtlVirtualUnwind(
                UNW_FLAG_NHANDLER,
                image as u64,
                context.Rip,
                function,
                &mut context,
                &mut handler_data,
                &mut established,
                ptr::null_mut(),
            );
        }
        if context.Rip == 0 {
            return;
        }
    }
}

/// The module around the code at `address`, and the function there in the module's table.
fn lookup(address: usize) -> Option<(usize, *mut IMAGE_RUNTIME_FUNCTION_ENTRY)> {
    let mut image = 0;
    // SAFETY: the call only reads tables of loaded modules; `image` is valid for writing.
    let function = unsafe { RtlLookupFunctionEntry(address as u64, &mut image, ptr::null_mut()) };
    (!function.is_null()).then_some((image as usize, function))
}

/// The start of the function: some are cut into parts, each with an entry that leads to the first
/// part's.
fn start_of(image: usize, function: *const IMAGE_RUNTIME_FUNCTION_ENTRY) -> usize {
    /// Flag of `UNWIND_INFO`: the entry of another part follows.
    const CHAINED: u8 = 4;
    let mut function = function;
    loop {
        // SAFETY: the entry is in a table of a loaded module, and so is its unwind information: a
        // byte with the version and flags, two more, the number of codes, and the codes of two
        // bytes. The entry of another part is aligned, after the codes.
        unsafe {
            let information = image + (*function).Anonymous.UnwindData as usize;
            let [first, _, codes, _] = *(information as *const [u8; 4]);
            if first >> 3 & CHAINED == 0 {
                return image + (*function).BeginAddress as usize;
            }
            let codes = usize::from(codes).next_multiple_of(2);
            function = (information + 4 + 2 * codes) as *const c_void as *const _;
        }
    }
}

/// The start of the function around the code at `address`; 0 if it is not known.
pub(crate) fn function_at(address: usize) -> usize {
    lookup(address).map_or(0, |(image, function)| start_of(image, function))
}

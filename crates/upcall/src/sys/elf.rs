//! The loaded objects of the process, and their exported functions.

use std::arch::global_asm;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Phdr as Phdr;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Phdr as Phdr;

/// A symbol of an object file.
#[repr(C)]
struct Sym {
    name: u32,
    #[cfg(target_pointer_width = "32")]
    value_and_size: [u32; 2],
    _type_and_visibility: [u8; 2],
    section: u16,
    #[cfg(target_pointer_width = "64")]
    value_and_size: [u64; 2],
}

/// A directive for a pointer-sized word.
#[cfg(target_pointer_width = "64")]
macro_rules! word {
    ($value:literal) => {
        concat!(".quad ", $value)
    };
}
#[cfg(target_pointer_width = "32")]
macro_rules! word {
    ($value:literal) => {
        concat!(".long ", $value)
    };
}

/// The name of the word for the weak reference. It contains the version of upcall, since a program
/// may contain several.
macro_rules! linked {
    () => {
        concat!(
            "upcall_cpp_runtime_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

const GET_GLOBALS: &CStr = c"__cxa_get_globals";

// The word holds the address of the function, bound by the linker or the loader, or 0 if there is
// none.
global_asm!(
    concat!(".pushsection .data.rel.ro.", linked!(), ",\"aw\",%progbits"),
    ".weak __cxa_get_globals",
    concat!(".weak ", linked!()),
    concat!(".hidden ", linked!()),
    ".p2align 3",
    concat!(linked!(), ":"),
    word!("__cxa_get_globals"),
    ".popsection",
);

unsafe extern "C" {
    #[link_name = linked!()]
    static LINKED: usize;
}

/// The address of `__cxa_get_globals` of a C++ runtime, if one is loaded.
///
/// First choice is the function bound to the weak reference. It belongs to the program's own
/// runtime, or to one that the loader keeps for us. Second choice is libstdc++, wherever it is
/// loaded; of several, the first. glibc does not unload it, since it has unique symbols.
pub fn cpp_runtime() -> Option<usize> {
    // SAFETY: the word is never written while the program runs. The read is volatile because the
    // linker or the loader wrote it.
    let linked = unsafe { (&raw const LINKED).read_volatile() };
    if linked != 0 {
        return Some(linked);
    }
    let mut search = Search { is_first: true, found: None };
    // SAFETY: `look_into` gets the address of a live `Search`. The loader unloads no object
    // meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(look_into), (&raw mut search).cast()) };
    search.found
}

/// The state of one search through the loaded objects.
struct Search {
    is_first: bool,
    found: Option<usize>,
}

/// Looks into one object. Ends the iteration if it finds the function, or if nothing was loaded
/// since the last search.
///
/// # Safety
/// Only for `dl_iterate_phdr`, which passes loaded objects; `search` points to a `Search`.
unsafe extern "C" fn look_into(object: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
    /// The number of objects ever loaded, as of the beginning of the last search.
    static LOADED: AtomicU64 = AtomicU64::new(0);

    // SAFETY: the loader passes a loaded object, and the caller guarantees that `search` points to
    // a `Search`.
    let (object, search) = unsafe { (&*object, &mut *search.cast::<Search>()) };
    if std::mem::take(&mut search.is_first) && LOADED.swap(object.dlpi_adds, Relaxed) == object.dlpi_adds {
        return 1;
    }
    // SAFETY: the object is loaded, so its name is a C string or null.
    unsafe {
        if !object.dlpi_name.is_null() && is_libstdcpp(CStr::from_ptr(object.dlpi_name)) {
            search.found = exported(object, GET_GLOBALS);
        }
    }
    c_int::from(search.found.is_some())
}

fn is_libstdcpp(path: &CStr) -> bool {
    let path = path.to_bytes();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    name.starts_with(b"libstdc++.so")
}

/// The address of the function `name` exported by an object. The object needs a GNU hash table.
///
/// # Safety
/// The object is loaded.
unsafe fn exported(object: &libc::dl_phdr_info, name: &CStr) -> Option<usize> {
    const STRTAB: usize = 5;
    const SYMTAB: usize = 6;
    const GNU_HASH: usize = 0x6fff_fef5;

    let base = object.dlpi_addr as usize;
    // SAFETY: a loaded object has `dlpi_phnum` program headers at `dlpi_phdr`.
    let parts: &[Phdr] = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let dynamic = parts.iter().find(|part| part.p_type == libc::PT_DYNAMIC)?;
    let mut entry = (base + dynamic.p_vaddr as usize) as *const [usize; 2];
    let (mut strings, mut symbols, mut hashes) = (None, None, None);
    loop {
        // SAFETY: the dynamic section of a loaded object is a table ending with a zero tag.
        let [tag, value] = unsafe { entry.read() };
        // glibc has added the base already; other loaders have not.
        let address = if value < base { base + value } else { value };
        match tag {
            0 => break,
            STRTAB => strings = Some(address as *const u8),
            SYMTAB => symbols = Some(address as *const Sym),
            GNU_HASH => hashes = Some(address as *const u32),
            _ => {}
        }
        entry = entry.wrapping_add(1);
    }
    let (strings, symbols, hashes) = (strings?, symbols?, hashes?);
    let wanted =
        name.to_bytes().iter().fold(5381_u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
    // SAFETY: a GNU hash table consists of 4 numbers, a bloom filter of words, the buckets, and a
    // chain for each bucket. The last hash of a chain is odd. So all reads are inside the tables.
    unsafe {
        let [buckets, first, words, _] = hashes.cast::<[u32; 4]>().read();
        let bucket = hashes.add(4).cast::<usize>().add(words as usize).cast::<u32>();
        let chain = bucket.add(buckets as usize);
        let mut index = bucket.add((wanted % buckets) as usize).read();
        while index >= first {
            let hash = chain.add((index - first) as usize).read();
            let symbol = &*symbols.add(index as usize);
            let is_named = || CStr::from_ptr(strings.add(symbol.name as usize).cast()) == name;
            if hash | 1 == wanted | 1 && symbol.section != 0 && is_named() {
                return Some(base + symbol.value_and_size[0] as usize);
            }
            if hash & 1 == 1 {
                break;
            }
            index += 1;
        }
    }
    None
}

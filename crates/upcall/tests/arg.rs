//! Checked arguments: what passes, and what is refused with which message.

use std::ptr::{dangling, dangling_mut, null, null_mut, without_provenance, without_provenance_mut};

use upcall::arg::{self, ArgError};

#[test]
fn texts() {
    // SAFETY: each argument is null or a C string.
    unsafe {
        assert_eq!(arg::str(c"größe".as_ptr()), Ok("größe"));
        assert_eq!(arg::str(c"".as_ptr()), Ok(""));
        assert_eq!(arg::str(null()), Err(ArgError::Null));
        assert_eq!(arg::str(c"gr\xf6\xdfe".as_ptr()), Err(ArgError::NotUtf8 { position: 2 }));
        assert_eq!(arg::optional_str(c"text".as_ptr()), Ok(Some("text")));
        assert_eq!(arg::optional_str(null()), Ok(None));
        assert_eq!(arg::optional_str(c"\xff".as_ptr()), Err(ArgError::NotUtf8 { position: 0 }));
        assert_eq!(arg::c_str(c"gr\xf6".as_ptr()), Ok(c"gr\xf6"));
        assert_eq!(arg::c_str(null()), Err(ArgError::Null));
    }
}

#[test]
fn slices() {
    let mut numbers = [1u32, 2, 3];
    let odd = numbers.as_ptr().wrapping_byte_add(1);
    let misaligned = ArgError::Misaligned { address: odd.addr(), align: 4 };
    // SAFETY: the arguments that pass the checks are the array, or have no elements.
    unsafe {
        assert_eq!(arg::slice(numbers.as_ptr(), 3), Ok(&[1, 2, 3][..]));
        assert_eq!(arg::slice::<u32>(null(), 0), Ok(&[][..]));
        assert_eq!(arg::slice(odd, 0), Ok(&[][..]));
        assert_eq!(arg::slice::<u32>(null(), 1), Err(ArgError::Null));
        assert_eq!(arg::slice(odd, 2), Err(misaligned));
        let len = isize::MAX as usize / 4 + 1;
        assert_eq!(arg::slice(numbers.as_ptr(), len), Err(ArgError::TooLong { len }));
        assert_eq!(arg::slice(numbers.as_ptr(), usize::MAX), Err(ArgError::TooLong { len: usize::MAX }));
        assert_eq!(arg::slice(dangling::<()>(), usize::MAX).map(<[_]>::len), Ok(usize::MAX));

        arg::slice_mut(numbers.as_mut_ptr(), 2).unwrap()[1] = 7;
        assert_eq!(numbers, [1, 7, 3]);
        assert_eq!(arg::slice_mut::<u32>(null_mut(), 0), Ok(&mut [][..]));
        assert_eq!(arg::slice_mut::<u32>(null_mut(), 1), Err(ArgError::Null));
        assert_eq!(arg::slice_mut(odd.cast_mut(), 2), Err(misaligned));
        assert_eq!(arg::slice_mut(numbers.as_mut_ptr(), len), Err(ArgError::TooLong { len }));
        assert_eq!(arg::slice_mut(dangling_mut::<()>(), 2).map(|slice| slice.len()), Ok(2));
    }
}

#[test]
fn single_values() {
    let mut number = 5u64;
    let odd: *mut u64 = without_provenance_mut(12);
    let misaligned = ArgError::Misaligned { address: 12, align: align_of::<u64>() };
    // SAFETY: the arguments that pass the checks are the number, for one reference at a time.
    unsafe {
        assert_eq!(arg::reference(&raw const number), Ok(&5));
        assert_eq!(arg::reference::<u64>(null()), Err(ArgError::Null));
        *arg::reference_mut(&raw mut number).unwrap() += 1;
        arg::out(&raw mut number).map(|place| place.write(7 * place.assume_init_read())).unwrap();
        assert_eq!(number, 42);
        assert_eq!(arg::out::<u64>(null_mut()).map(drop), Err(ArgError::Null));
        if align_of::<u64>() == 8 {
            assert_eq!(arg::reference::<u64>(without_provenance(12)), Err(misaligned));
            assert_eq!(arg::reference_mut(odd), Err(misaligned));
            assert_eq!(arg::out(odd).map(drop), Err(misaligned));
        }
    }
}

#[test]
fn messages_say_what_to_do() {
    for (error, text) in [
        (ArgError::Null, "pass the address"),
        (ArgError::NotUtf8 { position: 7 }, "from its byte 7 on: convert"),
        (ArgError::Misaligned { address: 0x13, align: 4 }, "0x13 is not aligned to 4 bytes"),
        (ArgError::TooLong { len: usize::MAX }, "check it for negative values"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
}

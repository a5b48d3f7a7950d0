/* The function of execinfo.h that the host programs use, which musl lacks. */
#ifndef UPCALL_MUSL_EXECINFO_H
#define UPCALL_MUSL_EXECINFO_H

#include <unwind.h>

struct found_frames {
    void **addresses;
    int size, count;
};

static inline _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *to) {
    struct found_frames *found = to;
    if (found->count == found->size)
        return _URC_END_OF_STACK;
    found->addresses[found->count++] = (void *)_Unwind_GetIP(context);
    return _URC_NO_REASON;
}

static inline int backtrace(void **addresses, int size) {
    struct found_frames found = {addresses, size, 0};
    _Unwind_Backtrace(add_frame, &found);
    return found.count;
}

#endif

/* The C side of the guest library: see src/lib.rs for what each function does. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

typedef int (*guest_callback)(void *);

struct guest_where {
    uintptr_t low, high, sp;
    int exact; /* the bounds were given, not estimated */
    int own;   /* they are those of the thread's own stack */
};

void guest_bare(void);
int guest_empty(void);
int guest_increment(int x);
int guest_call(guest_callback callback, void *argument);
int guest_call_pooled(guest_callback callback, void *argument);
int guest_call_caller(guest_callback callback, void *argument);
int guest_call_plain(guest_callback callback, void *argument);
int guest_call_plain_then(guest_callback plain, guest_callback then, void *argument);
int guest_use_and_call(size_t bytes, guest_callback callback, void *argument);
int guest_panic(const char *message);
int guest_panic_with_bomb(void);
int guest_panic_while_dropping(guest_callback callback, void *argument);
int guest_catch(guest_callback callback, void *argument, char *buffer, size_t size);
void guest_bounds(struct guest_where *answer);
int guest_where(struct guest_where *answer);
int guest_where_caller(struct guest_where *answer, size_t min_stack);
int guest_use_stack(size_t bytes);
int guest_use_sized_stack(size_t min_stack, size_t bytes);
int guest_with_stack(size_t bytes, guest_callback callback, void *argument);
int guest_overflow(struct guest_where *answer);
int guest_attached_threads(void);
int guest_open_calls(void);
int guest_stacks_in_use(void);
void *guest_register(void *low, size_t size);
void guest_unregister(void *registration);

/* upcall's own C functions. */
int upcall_last_panic(char *buffer, size_t size);
const char *upcall_version(void);

#endif

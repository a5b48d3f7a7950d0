/* upcall_dump writes a snapshot of the process to a file descriptor. */
#include "host.h"

#ifndef _WIN32
#include <fcntl.h>
#endif

/* The text of the last dump. */
static char text[1 << 16];

static void dump(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
#ifndef _WIN32
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, sizeof text) >= (int)sizeof text);
#endif
    CHECK(upcall_dump(ends[1]) == 0);
    close(ends[1]);
    ssize_t size = read(ends[0], text, sizeof text - 1);
    CHECK(size > 0);
    text[size] = 0;
    close(ends[0]);
}

static int count(const char *what) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        count++;
    return count;
}

static int dump_here(void *unused) {
    (void)unused;
    dump();
    return 1;
}

static int call_pooled(void *unused) { return guest_call_pooled(dump_here, unused); }

static void nested(void) {
    CHECK(guest_call(call_pooled, NULL) == 1);
    CHECK(count("C → Rust, guest::guest_call,") == 1);
    CHECK(count("Rust → C, from guest::guest_call,") == 1);
    CHECK(count("C → Rust, guest::guest_call_pooled,") == 1);
    CHECK(count("took this snapshot") == 1);
    /* If no bounds are known, every upcall runs on a pooled stack. */
    CHECK(getenv("HOST_NO_QUERY") || count("pooled stack") == 1);
    dump();
    CHECK(count("guest::") == 0);
}

static int dump_on_fiber(void *unused) { return guest_call_pooled(dump_here, unused); }

static void fibers(void) {
    CHECK(upcall_local_begin() == 0);
    guest_fiber *fiber = guest_spawn_local(dump_on_fiber, NULL);
    CHECK(upcall_local_run_ready(SIZE_MAX) == 1);
    CHECK(guest_join(fiber) == 1);
    CHECK(count("fiber 0x") == 1 && count(", runs") == 1);
    CHECK(upcall_local_end() == 0);
}

static void in_coroutine(struct coroutine *c, void *unused) {
    (void)c;
    CHECK(guest_call(dump_here, unused) == 1);
}

static void registered(void) {
    enum { SIZE = 256 << 10 };
    struct memory memory = memory_new(GUARDED, SIZE);
    struct coroutine coroutine;
    CHECK(upcall_stack_register(memory.base, SIZE, "the host's \"first\"") == 0);
    coroutine_init(&coroutine, memory.base, SIZE, in_coroutine, NULL);
    coroutine_resume(&coroutine);
    CHECK(count("registered stack \"the host's \"first\"\"") == 1);
    CHECK(count("256 KiB") == 1 && count("KiB left") >= 1);
    CHECK(upcall_stack_unregister(memory.base) == 0);
    memory_free(memory);
}

/* On a bad descriptor, the dump fails with a message. */
static void bad_descriptors(void) {
    char message[200];
    const int bad[] = {-1, 1000};
    for (int i = 0; i < 2; i++) {
        CHECK(upcall_dump(bad[i]) == -1);
        CHECK(upcall_last_message(message, sizeof message) > 0);
        CHECK(strstr(message, "dump: "));
    }
    dump();
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"nested", nested},         {"fibers", fibers}, {"registered", registered},
        {"bad_descriptors", bad_descriptors}, {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

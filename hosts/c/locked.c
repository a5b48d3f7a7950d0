/* A host locks its memory: each pooled stack is locked by itself. */
#include "host.h"

#include <sys/mman.h>
#include <sys/resource.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

enum { KIB = 1024, STACK = 1024, CALLS = 10 };

/* Returns a value of /proc/self/status, in KiB. */
static long status(const char *key) {
    static char text[8 << 10];
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    const char *found = strstr(text, key);
    CHECK(found);
    return atol(found + strlen(key));
}

static long locked(void) { return status("VmLck:"); }
/* Without file pages. */
static long resident(void) { return status("RssAnon:"); }

static int nothing(void *unused) { return unused != NULL; }

static int lock_all(int flags) {
    if (mlockall(flags) == 0)
        return 1;
    puts("SKIPPED: no memory can be locked here");
    return 0;
}

/* The very first call, on a pooled stack, locks this stack and the memory for attaching the
 * thread. */
static void one_stack(void) {
    if (!lock_all(MCL_CURRENT | MCL_FUTURE))
        return;
    long before = locked(), resident_before = resident();
    CHECK(guest_call_pooled(nothing, NULL) == 0);
    long grown = locked() - before;
    printf("a pooled call has locked %ld KiB\n", grown);
    CHECK(grown >= 128 && grown <= STACK + 512);
    CHECK(resident() - resident_before <= STACK + 1024);
    /* The stack stays locked, and later calls lock nothing more. */
    before = locked();
    for (int i = 0; i < 100; i++)
        CHECK(guest_call_pooled(nothing, NULL) == 0);
    CHECK(locked() == before);
}

static void when_touched(void) {
    if (!lock_all(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
        return;
    long before = resident();
    CHECK(guest_call_pooled(nothing, NULL) == 0);
    printf("a pooled call has touched %ld KiB\n", resident() - before);
    CHECK(resident() - before <= 512);
}

/* The limit has room for a few stacks. */
static void under_a_limit(void) {
    struct rlimit limit;
    if (!lock_all(MCL_FUTURE))
        return;
    CHECK(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    rlim_t some = (rlim_t)(locked() + 6 * STACK) * KIB;
    limit.rlim_cur = limit.rlim_max < some ? limit.rlim_max : some;
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    /* Drops root's capability, so the limit applies. */
    if (geteuid() == 0)
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    for (int i = 0; i < CALLS; i++)
        CHECK(guest_call_pooled(nothing, NULL) == 0);
    printf("%ld KiB are locked\n", locked());
    CHECK(locked() <= 3 * STACK);
}

/* Locks everything mapped so far, which is little more than was used. */
static void afterwards(void) {
    CHECK(guest_call_pooled(nothing, NULL) == 0);
    long before = resident();
    if (!lock_all(MCL_CURRENT))
        return;
    long whole = resident() - before;
    printf("%ld KiB are in memory that were not\n", whole);
    /* This includes the data of the program and its libraries, and the thread's stack. */
    CHECK(whole < 8 * KIB);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"one_stack", one_stack},
        {"when_touched", when_touched},
        {"under_a_limit", under_a_limit},
        {"afterwards", afterwards},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

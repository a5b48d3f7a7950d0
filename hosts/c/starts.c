/* A shared object with a constructor that loads a plug-in and waits for a thread's first calls of
 * it. */
#include "objects.h"

int calls_made;

/* Found in advance: in the thread, `dlsym` would wait for the loader. */
#define FUNCTIONS(DO) DO(guest_increment) DO(guest_call_pooled) DO(guest_panic)
static struct {
#define DECLARE(name) __typeof__(name) *name;
    FUNCTIONS(DECLARE)
} plugin;

static int returns_7(void *unused) {
    (void)unused;
    return 7;
}

static void *calls(void *unused) {
    calls_made += plugin.guest_increment(1) == 2;
    calls_made += plugin.guest_call_pooled(returns_7, NULL) == 7;
    calls_made += plugin.guest_panic("while the loader is at work") == -1;
    return unused;
}

static __attribute__((constructor)) void starts(void) {
    void *object = open_object("first");
#define FIND(name) CHECK((plugin.name = find_symbol(object, #name)) != NULL);
    FUNCTIONS(FIND)
    on_thread(NULL, 0, calls, NULL);
}

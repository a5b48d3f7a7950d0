/* One program, two libraries with upcall: each has its own prefix and answers for itself only. */
#include "guest.h"
#include "upcall.h"
#define UPCALL_PREFIX second_
#include "upcall.h"

int h_panic(void);
int h_add(int, int);
int h_local_spawn(void);
int g_local_spawn(void);

static void say(const char *when, const char *whose, int (*last_message)(char *, size_t)) {
    char message[400];
    int length = last_message(message, sizeof message);
    printf("%s: %s_last_message -> %d %s\n", when, whose, length, length >= 0 ? message : "(none)");
}

int main(void) {
    printf("g_add %d h_add %d\n", g_add(1, 2), h_add(1, 2));
    printf("g_panic -> %d\n", g_panic());
    say("after g_panic", "upcall", upcall_last_message);
    printf("h_panic -> %d\n", h_panic());
    say("after h_panic", "second", second_last_message);
    say("then, of the first library", "upcall", upcall_last_message);
    printf("upcall_local_begin %d\n", upcall_local_begin());
    printf("g spawns on this thread's runtime: %d; h spawns on it: %d\n", g_local_spawn(), h_local_spawn());
    say("end", "second", second_last_message);
    return 0;
}

/* Memory returned by Rust, owned and freed by C. */
#include "host.h"

#ifndef _WIN32
#include <sys/wait.h>
#endif

static void strings_and_arrays(void) {
    char *text = guest_memory_text("owned by C");
    CHECK(text && strcmp(text, "owned by C") == 0);
    text[0] = 'O';
    size_t length;
    long *numbers = guest_memory_numbers(1000, &length);
    CHECK(numbers && length == 1000 && numbers[999] == 999);
    CHECK(upcall_memory_free(text) == 0 && upcall_memory_free(numbers) == 0);
    CHECK((numbers = guest_memory_numbers(0, &length)) && length == 0);
    CHECK(upcall_memory_free(numbers) == 0 && upcall_memory_free(NULL) == 0);
}

static void wrongly_freed(void) {
    char local, *foreign = malloc(16), *text = guest_memory_text("owned by C");
    CHECK(upcall_memory_free(&local) == -1 && last_panic_says("is no memory of this library"));
    CHECK(upcall_memory_free(foreign) == -1 && upcall_memory_free(text + 1) == -1);
    CHECK(upcall_memory_free(text) == 0);
    CHECK(upcall_memory_free(text) == -1 && last_panic_says("was freed already"));
    free(foreign);
    CHECK(guest_memory_numbers(3, NULL) == NULL && last_panic_says("a pointer is null"));
}

#ifndef _WIN32
static void *many(void *unused) {
    for (int i = 0; i < 2000; i++) {
        char *text = guest_memory_text("one of many");
        CHECK(strcmp(text, "one of many") == 0 && upcall_memory_free(text) == 0);
    }
    return unused;
}

/* A fork finds the table whole, whatever other threads are doing to it. The child frees its own
 * copies. */
static void forked(void) {
    pthread_t others[3];
    char *text = guest_memory_text("of the parent");
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&others[i], NULL, many, NULL) == 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            many(NULL);
            _exit(upcall_memory_free(text) == 0 && upcall_memory_free(text) == -1 ? 0 : 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(others[i], NULL) == 0);
    CHECK(upcall_memory_free(text) == 0);
}
#endif

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"strings_and_arrays", strings_and_arrays},
        {"wrongly_freed", wrongly_freed},
#ifndef _WIN32
        {"forked", forked},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

/* A `malloc` that makes upcalls.
 *
 * Each allocation of the process goes through Rust and back, including those of upcall itself and
 * of the C library. */
#include "host.h"

#include <stdatomic.h>

void *__libc_malloc(size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_calloc(size_t count, size_t size);

static _Atomic unsigned long hooked, failed;

struct request {
    size_t size;
    void *answer;
};

static int serve(void *data) {
    struct request *request = data;
    request->answer = __libc_malloc(request->size);
    return 5;
}

static void count(void) {
    int number = (int)hooked++;
    failed += guest_increment(number) != number + 1;
}

/* Allocates in a downcall of an upcall. */
void *malloc(size_t size) {
    struct request request = {size, NULL};
    hooked++;
    failed += guest_call(serve, &request) != 5;
    return request.answer;
}

void *realloc(void *old, size_t size) {
    count();
    return __libc_realloc(old, size);
}

void *calloc(size_t n, size_t size) {
    count();
    return __libc_calloc(n, size);
}

static void *allocate(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) {
        void *volatile memory = malloc(100 + i);
        free(memory);
    }
    return NULL;
}

static void check(unsigned long least) {
    CHECK(failed == 0);
    CHECK(hooked >= least);
}

/* Runs before `main`, and before or after the initialisation of the guest library. */
__attribute__((constructor)) static void allocate_early(void) {
    void *volatile memory = malloc(1);
    free(memory);
}

static void before_main(void) {
    check(1);
    allocate(NULL);
    check(1000);
}

static void threads(void) {
    pthread_t ids[16];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 16; i++)
            CHECK(pthread_create(&ids[i], NULL, allocate, NULL) == 0);
        for (int i = 0; i < 16; i++)
            CHECK(pthread_join(ids[i], NULL) == 0);
    }
    check(320000);
    CHECK(guest_attached_threads() == 1);
}

static void deep_in(struct coroutine *c, void *levels) {
    for (int i = 0; i < 3; i++) {
        allocate(NULL);
        coroutine_yield(c);
    }
    (void)levels;
}

/* Takes and returns pooled stacks. The pool's own allocations make upcalls that do so, too. */
static void coroutines(void) {
    enum { COUNT = 300 };
    static struct coroutine all[COUNT];
    for (int i = 0; i < COUNT; i++) {
        struct memory stack = memory_new(GUARDED, 64 << 10);
        coroutine_init(&all[i], stack.base, stack.size, deep_in, NULL);
    }
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < COUNT; i++)
            coroutine_resume(&all[i]);
    check(3 * COUNT * 1000);
}

static int nest(void *levels) {
    uintptr_t left = (uintptr_t)levels;
    allocate(NULL);
    return left == 0 ? 7 : guest_call_pooled(nest, (void *)(left - 1));
}

static void nested(void) {
    CHECK(nest((void *)100) == 7);
    check(100000);
}

/* Allocations under upcall's locks, on a new thread and on an attached one. */
static void *look(void *unused) {
    (void)unused;
    char text[1 << 12];
    for (int i = 0; i < 20; i++) {
        CHECK(guest_stacks_in_use() >= 0 && guest_attached_threads() >= 0);
        char *memory = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(upcall_stack_register(memory, 64 << 10, "a stack") == 0);
        CHECK(guest_panic("on purpose") != 0 && last_panic_says("on purpose"));
        CHECK(upcall_last_message(text, sizeof text) > 0);
        CHECK(upcall_stack_unregister(memory) == 0);
        CHECK(upcall_thread_detach() == 0);
    }
    return NULL;
}

static void under_locks(void) {
    on_thread(NULL, 0, look, NULL);
    look(NULL);
    check(100);
}

static int wait_a_little(void *unused) {
    allocate(unused);
    return guest_sleep(1);
}

static void fibers(void) {
    guest_fiber *all[50];
    for (int i = 0; i < 50; i++)
        all[i] = i % 2 ? guest_spawn(wait_a_little, NULL) : guest_spawn_on_fiber("a fiber", wait_a_little, NULL);
    for (int i = 0; i < 50; i++)
        CHECK(guest_join(all[i]) == 0);
    CHECK(guest_blocking(wait_a_little, NULL) == 0);
    check(50000);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"before_main", before_main},
        {"threads", threads},
        {"coroutines", coroutines},
        {"nested", nested},
        {"under_locks", under_locks},
        {"fibers", fibers},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

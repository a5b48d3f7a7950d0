/* C calls Rust closures and keeps Rust values: correctly, late, twice, at once, with the wrong
 * pointer, and from everywhere. */
#include "host.h"

#include <search.h>
#ifndef _WIN32
#include <setjmp.h>
#include <sys/wait.h>
#endif

static int call(struct guest_closure c, int number) { return c.call(c.data, number); }
static void destroy(struct guest_closure c) { c.destroy(c.data); }

/* Uses and destroys closures correctly, from every kind of caller. None remains. */
static void used_rightly(struct coroutine *unused, void *also_unused) {
    (void)unused;
    (void)also_unused;
    struct guest_closure adder = guest_adder(), once = guest_once();
    CHECK(call(adder, 2) == 2 && call(adder, 3) == 5);
    CHECK(call(adder, -1) == -1 && last_panic_says("-1 is negative"));
    CHECK(call(adder, 1) == 6);
    CHECK(call(once, 7) == 7);
    destroy(adder);
    destroy(once);
}

static void *used_rightly_on_thread(void *unused) {
    used_rightly(NULL, NULL);
    return unused;
}

static void rightly(void) {
    struct coroutine c;
    struct memory stack = memory_new(GUARDED, 64 << 10);
    used_rightly(NULL, NULL);
    on_thread(NULL, 0, used_rightly_on_thread, NULL);
    on_thread(NULL, PTHREAD_STACK_MIN, used_rightly_on_thread, NULL);
    coroutine_init(&c, stack.base, stack.size, used_rightly, NULL);
    coroutine_resume(&c);
    CHECK(c.done && guest_closures() == 0);
    memory_free(stack);
}

/* Calls after the end of the closure. */
static void late_and_twice(void) {
    struct guest_closure adder = guest_adder(), once = guest_once();
    destroy(adder);
    CHECK(call(adder, 1) == -1 && last_panic_says("is gone"));
    guest_panic("something else");
    destroy(adder);
    CHECK(last_panic_says("is gone"));
    CHECK(call(once, 1) == 1 && call(once, 1) == -1 && last_panic_says("to be called once and has been"));
    guest_panic("something else");
    destroy(once);
    CHECK(last_panic_says("something else") && guest_closures() == 0);
    /* A new closure reuses the slot, but has a number of its own. */
    struct guest_closure next = guest_adder();
    CHECK(call(adder, 1) == -1 && call(next, 1) == 1);
    destroy(adder);
    CHECK(call(next, 1) == 2);
    destroy(next);
}

static void wrong_data(void) {
    int local = 0;
    char *heap = malloc(64);
    struct guest_closure adder = guest_adder(), other = guest_bomb();
    void *account = guest_account_new(5);
    void *wrong[] = {NULL,      (void *)1,    &local,     heap,          (void *)rightly, (void *)-1,
                     other.data, account, (char *)adder.data + 1, (char *)adder.data + (1l << 30), stdout};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        guest_panic("something else");
        CHECK(adder.call(wrong[i], 1) == -1 && last_panic_says("the callback guest::callbacks::guest_adder::{{closure}} got"));
        guest_panic("something else");
        adder.destroy(wrong[i]);
        CHECK(last_panic_says("the callback guest::callbacks::guest_adder::{{closure}} got"));
        CHECK(wrong[i] == account || guest_account_free(wrong[i]) == -1);
    }
    CHECK(call(adder, 1) == 1 && call(other, 1) == 1 && guest_account_close(account) == 5);
    destroy(adder);
    CHECK(guest_closures() == 1);
    free(heap);
}

/* A closure called inside itself. */
static struct guest_closure own;

static int call_again(void *depth, int number) {
    (void)depth;
    return number == 0 ? 0 : call(own, number - 1) + 1;
}

static void inside_itself(void) {
    own = guest_calls_back(0, call_again, NULL);
    CHECK(call(own, 0) == 0);
    CHECK(call(own, 5) == 0 && last_panic_says("runs already"));
    destroy(own);
    own = guest_calls_back(1, call_again, NULL);
    CHECK(call(own, 5) == 5);
    destroy(own);
    CHECK(guest_closures() == 0);
}

/* A closure destroyed inside itself, as some C libraries do when a callback reports completion. It
 * stays until its call returns. */
static int destroy_own(void *argument, int number) {
    (void)argument;
    destroy(own);
    CHECK(guest_closures() == 1);
    CHECK(call(own, 1) == -1 && last_panic_says("is gone"));
    return number;
}

static void destroyed_inside(void) {
    for (int shared = 0; shared < 2; shared++) {
        own = guest_calls_back(shared, destroy_own, NULL);
        CHECK(call(own, 7) == 7 && guest_closures() == 0);
    }
}

/* A closure destroyed by another thread while it runs. */
static pthread_barrier_t barrier;

static int wait_inside(void *argument, int number) {
    (void)argument;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    CHECK(guest_closures() == 1);
    return number;
}

static void *call_own(void *unused) {
    CHECK(call(own, 9) == 9);
    return unused;
}

static void destroyed_meanwhile(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    own = guest_calls_back(0, wait_inside, NULL);
    CHECK(pthread_create(&thread, NULL, call_own, NULL) == 0);
    pthread_barrier_wait(&barrier);
    CHECK(call(own, 1) == -1 && last_panic_says("one thread at a time"));
    destroy(own);
    CHECK(call(own, 1) == -1 && last_panic_says("is gone"));
    pthread_barrier_wait(&barrier);
    CHECK(pthread_join(thread, NULL) == 0 && guest_closures() == 0);
}

/* Several threads call a closure at once, until one of them destroys it. */
enum { THREADS = 4, ROUNDS = 300 };

static int nothing(void *argument, int number) {
    (void)argument;
    CHECK(guest_closures() == 1);
    return number;
}

static void *call_until_gone(void *destroys) {
    pthread_barrier_wait(&barrier);
    for (int i = 1; call(own, i) == i; i++)
        if (destroys && i == 100)
            destroy(own);
    CHECK(last_panic_says("is gone"));
    return NULL;
}

static void raced(void) {
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        own = guest_calls_back(1, nothing, NULL);
        for (size_t i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, call_until_gone, (void *)(i % 2)) == 0);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(guest_closures() == 0);
    }
}

static void bombs(void) {
    struct guest_closure bomb = guest_bomb();
    CHECK(call(bomb, 3) == 3);
    destroy(bomb);
    CHECK(last_panic_says("dropped") && guest_closures() == 0);
    destroy(bomb);
    CHECK(last_panic_says("is gone"));
}

/* A closure lent by Rust is C's for the duration of a call. */
static struct guest_closure lent;

static void *call_lent(void *unused) {
    (void)unused;
    return (void *)(intptr_t)call(lent, 1);
}

static intptr_t lent_on_thread(void) {
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, call_lent, NULL) == 0 && pthread_join(thread, &result) == 0);
    return (intptr_t)result;
}

static int keep_and_call(const struct guest_closure *closure) {
    lent = *closure;
    CHECK(call(lent, 1) == 1 && call(lent, 1) == 2);
    CHECK(lent_on_thread() == -1);
    return call(lent, 1);
}

static int keep_and_call_on_thread(const struct guest_closure *closure) {
    lent = *closure;
    CHECK(call(lent, 1) == 1);
    CHECK(lent_on_thread() == 2);
    return call(lent, 1);
}

static void lent_by_rust(void) {
    CHECK(guest_lend(keep_and_call) == 3);
    CHECK(call(lent, 1) == -1 && last_panic_says("its scope has ended"));
    CHECK(guest_lend_shared(keep_and_call_on_thread) == 3);
    CHECK(call(lent, 1) == -1 && lent_on_thread() == -1);
}

/* A call that has not returned at the end of the scope, and never can. */
static struct coroutine suspended;

static int yield_in_call(int number) {
    coroutine_yield(&suspended);
    return number;
}

static void call_in_coroutine(struct coroutine *c, void *closure) {
    (void)c;
    call(*(struct guest_closure *)closure, 1);
}

static int leave_suspended(const struct guest_closure *closure) {
    struct memory stack = memory_new(GUARDED, 64 << 10);
    own = *closure;
    coroutine_init(&suspended, stack.base, stack.size, call_in_coroutine, &own);
    coroutine_resume(&suspended);
    return 0;
}

static void scope_ends_too_soon(void) { guest_lend_calling(yield_in_call, leave_suspended); }

#ifndef _WIN32
/* Calls that C abandons by longjmp: the scope ends all the same, and waits for none of them. */
static jmp_buf out;

static int jump_out(int number) {
    if (number == 0)
        longjmp(out, 1);
    return number;
}

/* From deeper than later calls are made, so that it is certain that this one is gone. */
static __attribute__((noinline)) void call_and_jump(void) {
    volatile char deeper[1024] = {0};
    if (setjmp(out) == 0)
        call(lent, deeper[0]);
    CHECK(deeper[1023] == 0);
}

static int jump_and_call(const struct guest_closure *closure) {
    lent = *closure;
    call_and_jump();
    CHECK(call(lent, 6) == 6);
    call_and_jump();
    return call(lent, 7);
}

static int jump_last(const struct guest_closure *closure) {
    lent = *closure;
    call_and_jump();
    return 8;
}

static void scope_with_jumps(void) {
    CHECK(guest_lend_calling(jump_out, jump_and_call) == 7);
    CHECK(guest_lend_calling(jump_out, jump_last) == 8);
    CHECK(call(lent, 1) == -1);
}
#endif

static void waits(void) {
    struct guest_closure waiter = guest_waiter();
    CHECK(call(waiter, 1) == 2);
    destroy(waiter);
    CHECK(guest_closures() == 0);
}

/* Opaque objects. */
static int add_again(void *account) { return guest_account_add(account, 1, NULL); }
static int free_it(void *account) { return guest_account_free(account); }
static int close_it(void *account) { return guest_account_close(account); }

static void accounts(void) {
    void *account = guest_account_new(40);
    CHECK(guest_account_add(account, 2, NULL) == 42);
    /* The inner panic continues at the downcall around it. */
    CHECK(guest_account_add(account, 1, add_again) == -1 && last_panic_says("is in use"));
    CHECK(guest_account_add(account, 1, close_it) == -1 && last_panic_says("is in use"));
    CHECK(guest_account_add(account, 1, free_it) == 45);
    CHECK(guest_closures() == 0);
    CHECK(guest_account_add(account, 1, NULL) == -1 && last_panic_says("freed already"));
    CHECK(guest_account_free(account) == -1 && last_panic_says("freed already"));
    CHECK(guest_account_add(NULL, 1, NULL) == -1 && last_panic_says("the handle is null"));
    CHECK(guest_account_free(&account) == -1 && last_panic_says("is no handle"));
    struct guest_closure adder = guest_adder();
    CHECK(guest_account_free(adder.data) == -1 && last_panic_says("works with guest::callbacks::Account"));
    destroy(adder);
}

/* A handle is no address: dereferencing it faults. */
static void dereferenced(void) {
    volatile int *account = guest_account_new(40);
    (void)*account;
}

#ifndef _WIN32
/* Use in the child of a fork, while another thread of the parent makes and frees objects. */
static volatile int stop;

static void *make_and_free(void *unused) {
    while (!stop)
        CHECK(guest_account_close(guest_account_new(3)) == 3);
    return unused;
}

static void forked(void) {
    pthread_t thread;
    void *account = guest_account_new(40);
    struct guest_closure adder = guest_adder();
    CHECK(call(adder, 1) == 1);
    CHECK(pthread_create(&thread, NULL, make_and_free, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            CHECK(guest_account_add(account, 2, NULL) == 42 && guest_account_free(account) == 0);
            CHECK(call(adder, 1) == 2);
            destroy(adder);
            CHECK(guest_account_close(guest_account_new(1)) == 1);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(guest_account_close(account) == 40 && call(adder, 1) == 2);
}
#endif

/* Use in key destructors, in each of their rounds, and at exit. */
static pthread_key_t key;
static int rounds;

static void in_key_destructor(void *account) {
    CHECK(guest_account_close(account) == rounds);
    CHECK(guest_account_close(account) == -1);
    struct guest_closure adder = guest_adder();
    CHECK(call(adder, 2) == 2);
    destroy(adder);
    CHECK(call(adder, 2) == -1);
    if (++rounds < PTHREAD_DESTRUCTOR_ITERATIONS)
        CHECK(pthread_setspecific(key, guest_account_new(rounds)) == 0);
}

static void *set_key(void *unused) {
    CHECK(pthread_setspecific(key, guest_account_new(0)) == 0);
    return unused;
}

static void key_destructors(void) {
    CHECK(pthread_key_create(&key, in_key_destructor) == 0);
    on_thread(NULL, 0, set_key, NULL);
    CHECK(rounds == PTHREAD_DESTRUCTOR_ITERATIONS && guest_closures() == 0);
}

static void at_exit(void) {
    CHECK(call(own, 2) == 2);
    destroy(own);
    CHECK(guest_closures() == 0);
    puts("called at exit");
}

static void at_exit_case(void) {
    own = guest_adder();
    CHECK(atexit(at_exit) == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"rightly", rightly},
        {"late_and_twice", late_and_twice},
        {"wrong_data", wrong_data},
        {"inside_itself", inside_itself},
        {"destroyed_inside", destroyed_inside},
        {"destroyed_meanwhile", destroyed_meanwhile},
        {"raced", raced},
        {"bombs", bombs},
        {"lent_by_rust", lent_by_rust},
        {"scope_ends_too_soon", scope_ends_too_soon},
        {"waits", waits},
        {"accounts", accounts},
        {"dereferenced", dereferenced},
        {"key_destructors", key_destructors},
        {"at_exit", at_exit_case},
#ifndef _WIN32
        {"scope_with_jumps", scope_with_jumps},
        {"forked", forked},
#endif
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

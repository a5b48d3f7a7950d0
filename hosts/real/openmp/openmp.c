/* OpenMP: threads of teams call Rust, and teams begin and meet under Rust. */
#include "../../c/host.h"

#include <omp.h>
#include <sched.h>

typedef int (*entry)(guest_callback, void *);
static const entry calls[] = {guest_call, guest_call_pooled, guest_call_caller, guest_call_plain};

/* ---- loops ---- */

enum { TIMES = 1000000 };

#pragma omp declare reduction(in_rust : int : omp_out = guest_increment(omp_out + omp_in - 1)) initializer(omp_priv = 0)

static void loops(void) {
    long sum = 0;
    int ones = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (int i = 0; i < TIMES; i++)
        sum += guest_increment(i);
    CHECK(sum == (long)TIMES * (TIMES + 1) / 2);
#pragma omp parallel for schedule(dynamic, 16) reduction(in_rust : ones)
    for (int i = 0; i < TIMES; i++)
        ones = guest_increment(ones);
    CHECK(ones == TIMES && guest_open_calls() == 0);
}

/* ---- barriers and critical sections of a team, under Rust ---- */

static int arrived, turn;

/* Meets the other threads of the calling team. */
static int meet(void *round) {
#pragma omp atomic
    arrived++;
#pragma omp barrier
    CHECK(arrived == omp_get_num_threads() * (*(int *)round + 1));
#pragma omp critical
    turn = guest_increment(turn);
#pragma omp barrier
    return omp_get_thread_num();
}

static void barriers(void) {
    int team = 0;
#pragma omp parallel
    {
#pragma omp single
        team = omp_get_num_threads();
        for (int round = 0; round < 200; round++)
            CHECK(calls[(omp_get_thread_num() + round) % 4](meet, &round) == omp_get_thread_num());
        CHECK(guest_open_calls() == 0);
    }
    CHECK(team > 1 && turn == 200 * team);
}

/* ---- tasks: a waiting thread runs others meanwhile, on top of its live Rust frames ---- */

struct fib {
    int n, result;
};

static int fib(void *argument) {
    struct fib *fib_n = argument;
    if (fib_n->n < 2) {
        fib_n->result = fib_n->n;
        return 0;
    }
    struct fib one = {fib_n->n - 1, 0}, two = {fib_n->n - 2, 0};
#pragma omp task shared(one)
    CHECK(calls[one.n % 4](fib, &one) == 0);
#pragma omp task shared(two) untied
    CHECK(calls[two.n % 4](fib, &two) == 0);
#pragma omp taskwait
    fib_n->result = one.result + two.result;
    return 0;
}

static void tasks(void) {
    struct fib twenty = {20, 0};
#pragma omp parallel
#pragma omp single
    CHECK(guest_call(fib, &twenty) == 0);
    CHECK(twenty.result == 6765 && guest_open_calls() == 0);
}

/* ---- nested regions, each begun under Rust ---- */

static int region(void *argument) {
    int level = *(int *)argument, leaves = 0;
    if (level == 3)
        return 1;
#pragma omp parallel num_threads(3) reduction(+ : leaves)
    {
        int inner = level + 1;
        CHECK(omp_get_num_threads() == 3);
        leaves += calls[omp_get_thread_num()](region, &inner);
    }
    return leaves;
}

static void nested(void) {
    int level = 0;
    omp_set_max_active_levels(3);
    for (int i = 0; i < 20; i++)
        CHECK(guest_call(region, &level) == 27);
    CHECK(guest_open_calls() == 0);
}

/* Runs a team led by one of upcall's workers. */
static void on_worker(void) {
    int level = 2;
    for (int i = 0; i < 20; i++)
        CHECK(guest_join(guest_spawn(region, &level)) == 3);
}

/* ---- waits ---- */

enum { EACH = 2000 };

static void waits(void) {
    guest_channel *channel = guest_channel_new(4);
    long sum = 0;
    int pairs = 0;
#pragma omp parallel num_threads(8) reduction(+ : sum, pairs)
    {
        int sends = omp_get_thread_num() % 2;
        for (int n = 1; n <= EACH; n++) {
            if (sends)
                CHECK(guest_send(channel, n) == 0);
            else
                sum += n % 2 ? guest_receive(channel) : guest_receive_pooled(channel);
        }
        pairs += sends;
    }
    CHECK(pairs == 4 && sum == 4L * EACH * (EACH + 1) / 2);
    guest_channel_free(channel);
}

/* ---- panics ---- */

static int panics_in(void *thread) {
    int failed = 0;
#pragma omp parallel num_threads(4) reduction(+ : failed)
    if (omp_get_thread_num() == *(int *)thread) {
        failed += guest_panic("in a team") == -1;
        CHECK(last_panic_says("in a team"));
    } else {
        CHECK(guest_increment(1) == 2);
    }
    return failed;
}

/* Only the panicking thread gets the message. The panic is raised at the downcall around the team
 * if that thread made the downcall. */
static void panics(void) {
    for (int thread = 0; thread < 4; thread++) {
        char message[32] = "";
        int result = guest_catch(panics_in, &thread, message, sizeof message);
        CHECK(thread == 0 ? result == -2 && strcmp(message, "in a team") == 0 : result == 1);
    }
}

/* The thread with the failing upcall cancels the loop. */
static void cancelled(void) {
    int done = 0;
    CHECK(omp_get_cancellation());
#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
        for (int i = 0; i < 1000000; i++) {
            if (i == 1000 && guest_panic("stop") == -1) {
#pragma omp cancel for
            }
#pragma omp cancellation point for
#pragma omp atomic
            done += guest_increment(0);
        }
        CHECK(guest_open_calls() == 0);
    }
    CHECK(done >= 1000 - omp_get_max_threads() && done < 1000000);
}

/* ---- small stacks ---- */

static int seven(void *unused) {
    (void)unused;
    return 7;
}

static void small_stacks(void) {
    int pooled = 0, team = 0;
#pragma omp parallel num_threads(8) reduction(+ : pooled, team)
    {
        struct guest_where outside, here;
        guest_bounds(&outside);
        CHECK(outside.exact && outside.own && guest_where(&here) == 0);
        CHECK(guest_use_stack(100 << 10) == 0);
        pooled += !within(outside.low, outside.high, (void *)here.sp);
        team++;
        CHECK(guest_call(seven, NULL) == 7);
    }
    /* All are pooled except main's upcall, whose stack is large. */
    CHECK(team == 8 && pooled == 7);
}

/* ---- threads that exit ---- */

static void *leads_a_team(void *threads) {
#pragma omp parallel num_threads(*(int *)threads)
    {
        CHECK(guest_increment(1) == 2);
#pragma omp barrier
        CHECK(guest_attached_threads() >= *(int *)threads);
    }
    return NULL;
}

/* A team ends with its leading thread, or on request. Nothing of its threads remains. */
static void exits(void) {
    int threads = 5;
    for (int i = 0; i < 50; i++)
        on_thread(NULL, 0, leads_a_team, &threads);
    leads_a_team(&threads);
    CHECK(omp_pause_resource_all(omp_pause_hard) == 0);
    while (guest_attached_threads() != 1) /* until they are detached */
        sched_yield();
    CHECK(guest_stacks_in_use() <= 1);
    leads_a_team(&threads);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"loops", loops},
        {"barriers", barriers},
        {"tasks", tasks},
        {"nested", nested},
        {"on_worker", on_worker},
        {"waits", waits},
        {"panics", panics},
        {"cancelled", cancelled},
        {"small_stacks", small_stacks},
        {"exits", exits},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

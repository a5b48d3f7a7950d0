/* libuv's loop drives the fibers of its thread.
 *
 * Meanwhile, jobs of its thread pool make upcalls that wait for these fibers and for workers'
 * fibers. */
#include "../../c/host.h"

#include <uv.h>

enum { JOBS = 400, SERVERS = 4 };

static guest_channel *questions, *answers[JOBS];
static uv_poll_t fibers;
static uv_timer_t timer;
static int served, servers_ended, jobs_done, ticks;
static long ran;
static uv_thread_t loop_thread;

static int doubled(void *n) { return 2 * (int)(intptr_t)n; }

/* Runs on a fiber of the loop's thread, in C. Answers 3 × a question, with a worker's help. */
static void serve(void *unused) {
    (void)unused;
    for (int question; (question = guest_receive(questions)) < JOBS;) {
        uv_thread_t here = uv_thread_self();
        CHECK(uv_thread_equal(&here, &loop_thread));
        int two = guest_join(guest_spawn(doubled, (void *)(intptr_t)question));
        if (question % 10 == 0)
            CHECK(guest_sleep(2) == 0);
        CHECK(guest_send(answers[question], two + question) == 0);
        served++;
    }
    if (++servers_ended == SERVERS)
        CHECK(uv_poll_stop(&fibers) == 0 && uv_timer_stop(&timer) == 0);
}

static void can_run(uv_poll_t *handle, int status, int events) {
    (void)handle;
    CHECK(status == 0 && events == UV_READABLE);
    long now = upcall_local_run_ready(64);
    CHECK(now >= 0);
    ran += now;
}

/* Runs on a thread of the pool. */
static void work(uv_work_t *job) {
    intptr_t n = (intptr_t)job->data;
    CHECK(guest_join(guest_spawn(doubled, (void *)n)) == 2 * n);
    CHECK(guest_send(questions, (int)n) == 0);
    CHECK(guest_receive(answers[n]) == 3 * n);
    job->data = NULL;
}

static void after_work(uv_work_t *job, int status) {
    CHECK(status == 0 && job->data == NULL);
    if (++jobs_done == JOBS) {
        for (int i = 0; i < SERVERS; i++)
            CHECK(guest_send(questions, JOBS) == 0);
    }
}

static void tick(uv_timer_t *handle) {
    (void)handle;
    ticks++;
    /* An upcall that waits in the loop's own code: fibers run meanwhile. */
    CHECK(guest_join(guest_spawn_local(doubled, (void *)21)) == 42);
}

static void on_loop(uv_loop_t *loop) {
    static uv_work_t jobs[JOBS];
    loop_thread = uv_thread_self();
    questions = guest_channel_new(SERVERS);
    CHECK(upcall_local_begin() == 0);
    CHECK(uv_poll_init(loop, &fibers, upcall_local_fd()) == 0);
    CHECK(uv_poll_start(&fibers, UV_READABLE, can_run) == 0);
    CHECK(uv_timer_init(loop, &timer) == 0 && uv_timer_start(&timer, tick, 1, 1) == 0);
    for (int i = 0; i < SERVERS; i++)
        CHECK(upcall_local_spawn(serve, NULL) == 0);
    for (intptr_t n = 0; n < JOBS; n++) {
        answers[n] = guest_channel_new(1);
        jobs[n].data = (void *)n;
        CHECK(uv_queue_work(loop, &jobs[n], work, after_work) == 0);
    }
    CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
    CHECK(served == JOBS && jobs_done == JOBS && ran > 0);
    printf("%d jobs, %ld steps of the loop's fibers, %d ticks\n", JOBS, ran, ticks);
    uv_close((uv_handle_t *)&fibers, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
    CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
    CHECK(upcall_local_end() == 0);
    CHECK(guest_increment(1) == 2 && guest_open_calls() == 0);
}

static void main_loop(void) { on_loop(uv_default_loop()); }

static void *other_loop_there(void *unused) {
    uv_loop_t loop;
    CHECK(uv_loop_init(&loop) == 0);
    on_loop(&loop);
    CHECK(uv_loop_close(&loop) == 0);
    return unused;
}

static void other_loop(void) { on_thread(NULL, 0, other_loop_there, NULL); }

/* With nothing to run, the loop sleeps too. */
static int woken;

static void count_and_run(uv_poll_t *handle, int status, int events) {
    woken++;
    can_run(handle, status, events);
}

static void sleep_200(void *unused) {
    (void)unused;
    CHECK(guest_sleep(200) == 0);
    CHECK(uv_poll_stop(&fibers) == 0);
}

static void idle(void) {
    uv_loop_t *loop = uv_default_loop();
    CHECK(upcall_local_begin() == 0 && upcall_local_spawn(sleep_200, NULL) == 0);
    CHECK(uv_poll_init(loop, &fibers, upcall_local_fd()) == 0);
    CHECK(uv_poll_start(&fibers, UV_READABLE, count_and_run) == 0);
    CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
    printf("woken %d times\n", woken);
    CHECK(ran == 2 && woken <= 4);
    CHECK(upcall_local_end() == 0);
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"main_loop", main_loop},
        {"other_loop", other_loop},
        {"idle", idle},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

/* The Rust functions, for the C compiler and for FFI::cdef. The result -1 means failure:
 * host_last_message has the message. */
typedef int (*callback)(void *argument);

/* Make a downcall in an upcall: on the usual stack, on a pooled stack, and on the stack of the
 * fiber around PHP, if there is one. */
int host_call(callback function, void *argument);
int host_call_pooled(callback function, void *argument);
int host_call_on_fiber(callback function, void *argument);
/* Makes a downcall and catches the panic raised there: -2, and the message. */
int host_catch(callback function, void *argument, char *message, size_t size);
int host_panic(const char *message);
/* Sorts by C's qsort_r. Every comparison goes through Rust. */
int host_sort(int *numbers, size_t count, int (*compare)(int a, int b, void *argument), void *argument);

/* Wait for `number`, from a worker's fiber, another thread or a fiber of this thread. */
int host_wait_for_worker(int number);
int host_wait_for_thread(int number);
int host_wait_for_fiber(int number);
int host_sleep(unsigned milliseconds);

/* A channel of numbers; send waits for room, and receive for a number. */
int host_channel(int capacity);
int host_send(int channel, int number);
int host_receive(int channel);

/* Fetches a page by HTTP: its length. */
int host_fetch(const char *url, char *page, size_t size);

/* Start a waiting fiber of this thread, and ask for its number: -2 before its end. */
int host_start(int number);
int host_ended(int fiber);

/* The open calls of this thread, and the pooled stacks in use. */
int host_open_calls(void);
int host_stacks_in_use(void);

int host_local_begin(void);
long host_local_run_ready(size_t max);
int host_local_fd(void);
int host_last_message(char *message, size_t size);

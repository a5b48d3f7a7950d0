/* The Rust functions, for the C compiler and for FFI::cdef. FAILED is -1: the message is upcall_last_panic's. */
typedef int (*callback)(void *argument);

/* An upcall that makes a downcall; the same from a pooled stack, and on the stack of the fiber that PHP runs in, if it does. */
int host_call(callback function, void *argument);
int host_call_pooled(callback function, void *argument);
int host_call_on_fiber(callback function, void *argument);
/* A downcall whose panic is caught: -2, and the message. */
int host_catch(callback function, void *argument, char *message, size_t size);
int host_panic(const char *message);
/* Sorts by C's qsort_r, whose comparisons go through Rust. */
int host_sort(int *numbers, size_t count, int (*compare)(int a, int b, void *argument), void *argument);

/* Waits for `number`, from a worker's fiber, another thread or a fiber of this thread. */
int host_wait_for_worker(int number);
int host_wait_for_thread(int number);
int host_wait_for_fiber(int number);
int host_sleep(unsigned milliseconds);

/* Starts a fiber of this thread that waits, and asks for its number: -2 while it has not ended. */
int host_start(int number);
int host_ended(int fiber);

/* What is open on this thread, and how many pooled stacks are in use. */
int host_open_calls(void);
int host_stacks_in_use(void);

int upcall_local_begin(void);
long upcall_local_run_ready(size_t max);
int upcall_local_fd(void);
int upcall_last_panic(char *message, size_t size);

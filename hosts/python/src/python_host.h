/* The Rust functions, for cffi. FAILED is -1: the message is upcall_last_panic's. */
typedef int (*callback)(void *argument);

/* An upcall that makes a downcall; the same from a pooled stack. */
int host_call(callback function, void *argument);
int host_call_pooled(callback function, void *argument);
/* A downcall whose panic is caught: -2, and the message. */
int host_catch(callback function, void *argument, char *message, size_t size);
int host_panic(const char *message);
/* Sorts by C's qsort_r, whose comparisons go through Rust. */
int host_sort(int *numbers, size_t count, int (*compare)(int a, int b, void *argument), void *argument);

/* Waits for `number`, from a worker's fiber. */
int host_wait_for_worker(int number);
/* A channel of numbers: one waits for what another sends. */
typedef struct host_channel host_channel;
host_channel *host_channel_new(void);
void host_channel_free(host_channel *channel);
int host_send(host_channel *channel, int number);
int host_receive(host_channel *channel);
/* Starts a fiber of this thread that waits for a worker's, and calls `function`, with `argument`. */
int host_start(callback function, void *argument);

/* What is open on this thread, and how many pooled stacks are in use. */
int host_open_calls(void);
int host_stacks_in_use(void);

int upcall_local_begin(void);
long upcall_local_run_ready(size_t max);
int upcall_local_fd(void);
int upcall_local_end(void);
int upcall_last_panic(char *message, size_t size);

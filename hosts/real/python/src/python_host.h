/* The Rust functions, for cffi. The result -1 means failure: host_last_message has the message. */
typedef int (*callback)(void *argument);

/* Make a downcall in an upcall: on the usual stack, and on a pooled stack. */
int host_call(callback function, void *argument);
int host_call_pooled(callback function, void *argument);
/* Makes a downcall and catches the panic raised there: -2, and the message. */
int host_catch(callback function, void *argument, char *message, size_t size);
int host_panic(const char *message);
/* Sorts by C's qsort_r. Every comparison goes through Rust. */
int host_sort(int *numbers, size_t count, int (*compare)(int a, int b, void *argument), void *argument);

/* Waits for `number`, from a worker's fiber. */
int host_wait_for_worker(int number);
/* A channel of numbers: one side waits for the numbers sent by the other. */
typedef struct host_channel host_channel;
host_channel *host_channel_new(void);
void host_channel_free(host_channel *channel);
int host_send(host_channel *channel, int number);
int host_receive(host_channel *channel);
/* Starts a fiber of this thread. It waits for a worker's fiber, and then calls `function`. */
int host_start(callback function, void *argument);

/* Waits for some milliseconds. */
int host_sleep(unsigned milliseconds);
/* The address of a variable of this function. */
size_t host_frame(void);

/* The open calls of this thread, and the pooled stacks in use. */
int host_open_calls(void);
int host_stacks_in_use(void);

int host_local_begin(void);
long host_local_run_ready(size_t max);
int host_local_fd(void);
int host_local_end(void);
int host_last_message(char *message, size_t size);

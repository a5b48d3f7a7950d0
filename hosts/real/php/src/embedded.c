/* PHP's side of the embedding program: the functions of php_host.h as PHP functions. A callback is
 * any callable; a failure is an exception with the panic's message. */
#include <sapi/embed/php_embed.h>
#include <zend_exceptions.h>
#include <zend_fibers.h>
#include <zend_interfaces.h>

#include "php_host.h"

int host_wait_for_loop(int number);
int host_coroutines_install(unsigned flags, void *data, void *(*current)(void *), int (*suspend)(void *, void *), void (*resume)(void *, void *));
int host_coroutines_uninstall(unsigned flags);
int host_coroutines_fd(void);
int host_coroutines_next_ready(void **number);
int embedded_begin(void);
int embedded_request(int argc, char **argv);
void embedded_end(void);

struct call {
	zend_fcall_info info;
	zend_fcall_info_cache cache;
	bool left;
};

/* Calls PHP. After a fatal error, PHP abandons the call by longjmp. The longjmp ends here, and
 * continues when Rust has returned. */
static int call_php(struct call *call, uint32_t count, zval *arguments) {
	zval result;
	ZVAL_UNDEF(&result);
	call->info.retval = &result;
	call->info.param_count = count;
	call->info.params = arguments;
	zend_try {
		zend_call_function(&call->info, &call->cache);
	} zend_catch {
		call->left = true;
	} zend_end_try();
	int number = Z_TYPE(result) == IS_LONG ? (int)Z_LVAL(result) : 0;
	zval_ptr_dtor(&result);
	return number;
}

static int call_without(void *call) {
	return call_php(call, 0, NULL);
}

static int call_with_two(int a, int b, void *call) {
	zval two[2];
	ZVAL_LONG(&two[0], a);
	ZVAL_LONG(&two[1], b);
	return call_php(call, 2, two);
}

/* Calls PHP like call_without, but PHP's longjmp skips the Rust frames. */
static int call_unguarded(void *argument) {
	struct call *call = argument;
	zval result;
	ZVAL_UNDEF(&result);
	call->info.retval = &result;
	zend_call_function(&call->info, &call->cache);
	return Z_TYPE(result) == IS_LONG ? (int)Z_LVAL(result) : 0;
}

/* Continues PHP's longjmp if it ended below Rust, or throws Rust's panic as an exception. Returns
 * whether there is an exception. */
static bool is_over(int result, const struct call *call) {
	if (call && call->left) {
		zend_bailout();
	}
	if (result == -1 && !EG(exception)) {
		char message[200] = "";
		host_last_message(message, sizeof message);
		zend_throw_exception(NULL, message, 0);
	}
	return EG(exception) != NULL;
}

#define CALLABLE(call) \
	struct call call = {.left = false}; \
	ZEND_PARSE_PARAMETERS_START(1, 1) \
		Z_PARAM_FUNC(call.info, call.cache) \
	ZEND_PARSE_PARAMETERS_END()

#define CALLS(name, function, callback) \
	static PHP_FUNCTION(name) { \
		CALLABLE(call); \
		int result = function(callback, &call); \
		if (!is_over(result, &call)) { \
			RETVAL_LONG(result); \
		} \
	}

CALLS(host_call, host_call, call_without)
CALLS(host_call_pooled, host_call_pooled, call_without)
CALLS(host_call_on_fiber, host_call_on_fiber, call_without)
CALLS(host_call_unguarded, host_call_on_fiber, call_unguarded)

static PHP_FUNCTION(host_catch) {
	CALLABLE(call);
	char message[200];
	int result = host_catch(call_without, &call, message, sizeof message);
	if (is_over(result, &call)) {
		return;
	}
	if (result == -2) {
		RETURN_STRING(message);
	}
	RETURN_LONG(result);
}

static PHP_FUNCTION(host_panic) {
	char *message;
	size_t length;
	ZEND_PARSE_PARAMETERS_START(1, 1)
		Z_PARAM_STRING(message, length)
	ZEND_PARSE_PARAMETERS_END();
	is_over(host_panic(message), NULL);
}

static PHP_FUNCTION(host_sort) {
	HashTable *array;
	struct call call = {.left = false};
	ZEND_PARSE_PARAMETERS_START(2, 2)
		Z_PARAM_ARRAY_HT(array)
		Z_PARAM_FUNC(call.info, call.cache)
	ZEND_PARSE_PARAMETERS_END();
	/* The request owns this memory: its end frees the memory even after PHP's longjmp. */
	int *numbers = safe_emalloc(zend_hash_num_elements(array), sizeof(int), 0);
	size_t count = 0;
	zval *element;
	ZEND_HASH_FOREACH_VAL(array, element) {
		numbers[count++] = (int)zval_get_long(element);
	} ZEND_HASH_FOREACH_END();
	if (!is_over(host_sort(numbers, count, call_with_two, &call), &call)) {
		array_init_size(return_value, count);
		for (size_t at = 0; at < count; at++) {
			add_next_index_long(return_value, numbers[at]);
		}
	}
	efree(numbers);
}

/* The Fibers suspended in Rust. Each suspended wait has a number of its own, so a late one names no
 * other Fiber. */
static HashTable suspended;
static zend_ulong numbers;

static void *current(void *data) {
	(void)data;
	const zend_fiber *fiber = EG(active_fiber);
	/* PHP cannot switch in a destructor, and not in a destroyed Fiber. */
	bool stays = !fiber || fiber->flags & ZEND_FIBER_FLAG_DESTROYED || zend_fiber_switch_blocked();
	return stays ? NULL : (void *)++numbers;
}

static void call_fiber(zend_object *fiber, const char *name) {
	zval result;
	ZVAL_UNDEF(&result);
	zend_call_method(fiber, zend_ce_fiber, NULL, name, strlen(name), &result, 0, NULL, NULL);
	zval_ptr_dtor(&result);
}

/* An exception thrown into the Fiber, or its destruction, is in EG(exception) afterwards. It
 * continues in is_over, when Rust has returned. */
static int suspend(void *data, void *number) {
	(void)data;
	if (!EG(exception)) {
		zend_hash_index_add_ptr(&suspended, (zend_ulong)number, EG(active_fiber));
		call_fiber(NULL, "suspend");
		zend_hash_index_del(&suspended, (zend_ulong)number);
	}
	return EG(exception) != NULL;
}

static PHP_FUNCTION(host_coroutines_install) {
	ZEND_PARSE_PARAMETERS_NONE();
	is_over(host_coroutines_install(0, NULL, current, suspend, NULL), NULL);
}

/* A new stream for the event loop. (The file php://fd/N exists in PHP's own program only.) */
static PHP_FUNCTION(host_coroutines_descriptor) {
	ZEND_PARSE_PARAMETERS_NONE();
	php_stream *stream = php_stream_fopen_from_fd(dup(host_coroutines_fd()), "r", NULL);
	php_stream_to_zval(stream, return_value);
}

/* If an exception ends a Fiber, it arrives here. The descriptor stays readable for the others. */
static PHP_FUNCTION(host_coroutines_run_ready) {
	ZEND_PARSE_PARAMETERS_NONE();
	void *number;
	for (int left = 1000; left > 0 && !EG(exception) && host_coroutines_next_ready(&number) == 1; left--) {
		zend_fiber *fiber = zend_hash_index_find_ptr(&suspended, (zend_ulong)number);
		if (fiber) {
			GC_ADDREF(&fiber->std);
			call_fiber(&fiber->std, "resume");
			OBJ_RELEASE(&fiber->std);
		}
	}
}

/* Destroys the Fibers still suspended. After a fatal error, PHP would free their stacks with Rust's
 * frames on them. */
static PHP_RSHUTDOWN_FUNCTION(host) {
	(void)type, (void)module_number;
	zend_fiber *fiber;
	zend_ulong number;
	for (zend_hash_internal_pointer_reset(&suspended); (fiber = zend_hash_get_current_data_ptr(&suspended)); zend_hash_internal_pointer_reset(&suspended)) {
		zend_hash_get_current_key(&suspended, NULL, &number);
		zend_hash_index_del(&suspended, number);
		zend_try {
			fiber->std.handlers->dtor_obj(&fiber->std);
		} zend_end_try();
	}
	host_coroutines_uninstall(0);
	return SUCCESS;
}

#define TAKES_NUMBER(name) \
	static PHP_FUNCTION(name) { \
		zend_long number; \
		ZEND_PARSE_PARAMETERS_START(1, 1) \
			Z_PARAM_LONG(number) \
		ZEND_PARSE_PARAMETERS_END(); \
		int result = name(number); \
		if (!is_over(result, NULL)) { \
			RETVAL_LONG(result); \
		} \
	}

TAKES_NUMBER(host_wait_for_worker)
TAKES_NUMBER(host_wait_for_thread)
TAKES_NUMBER(host_wait_for_fiber)
TAKES_NUMBER(host_wait_for_loop)
TAKES_NUMBER(host_sleep)
TAKES_NUMBER(host_channel)
TAKES_NUMBER(host_receive)

static PHP_FUNCTION(host_send) {
	zend_long channel, number;
	ZEND_PARSE_PARAMETERS_START(2, 2)
		Z_PARAM_LONG(channel)
		Z_PARAM_LONG(number)
	ZEND_PARSE_PARAMETERS_END();
	int result = host_send(channel, number);
	if (!is_over(result, NULL)) {
		RETVAL_LONG(result);
	}
}

static PHP_FUNCTION(host_open_calls) {
	ZEND_PARSE_PARAMETERS_NONE();
	RETURN_LONG(host_open_calls());
}

static PHP_FUNCTION(host_stacks_in_use) {
	ZEND_PARSE_PARAMETERS_NONE();
	RETURN_LONG(host_stacks_in_use());
}

ZEND_BEGIN_ARG_INFO(none, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_INFO(one, 0)
	ZEND_ARG_INFO(0, argument)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_INFO(two, 0)
	ZEND_ARG_INFO(0, first)
	ZEND_ARG_INFO(0, second)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	PHP_FE(host_call, one)
	PHP_FE(host_call_pooled, one)
	PHP_FE(host_call_on_fiber, one)
	PHP_FE(host_call_unguarded, one)
	PHP_FE(host_catch, one)
	PHP_FE(host_panic, one)
	PHP_FE(host_sort, two)
	PHP_FE(host_wait_for_worker, one)
	PHP_FE(host_wait_for_thread, one)
	PHP_FE(host_wait_for_fiber, one)
	PHP_FE(host_wait_for_loop, one)
	PHP_FE(host_sleep, one)
	PHP_FE(host_channel, one)
	PHP_FE(host_receive, one)
	PHP_FE(host_send, two)
	PHP_FE(host_coroutines_install, none)
	PHP_FE(host_coroutines_descriptor, none)
	PHP_FE(host_coroutines_run_ready, none)
	PHP_FE(host_open_calls, none)
	PHP_FE(host_stacks_in_use, none)
	PHP_FE_END
};

static zend_module_entry module = {STANDARD_MODULE_HEADER, "host", functions, NULL, NULL, NULL, PHP_RSHUTDOWN(host), NULL, "1", STANDARD_MODULE_PROPERTIES};

static int startup(sapi_module_struct *sapi) {
	return php_module_startup(sapi, &module);
}

int embedded_begin(void) {
	zend_hash_init(&suspended, 0, NULL, NULL, true);
	php_embed_module.startup = startup;
	if (php_embed_init(0, NULL) == FAILURE) {
		return -1;
	}
	/* php_embed_init has begun a request, too. */
	php_request_shutdown(NULL);
	return 0;
}

/* Runs argv[0] as a script with these arguments. Returns its exit status. */
int embedded_request(int argc, char **argv) {
	SG(request_info).argc = argc;
	SG(request_info).argv = argv;
	if (php_request_startup() == FAILURE) {
		return -1;
	}
	zend_first_try {
		zend_file_handle script;
		zend_stream_init_filename(&script, argv[0]);
		php_execute_script(&script);
		zend_destroy_file_handle(&script);
	} zend_end_try();
	int status = EG(exit_status);
	php_request_shutdown(NULL);
	return status;
}

void embedded_end(void) {
	/* php_embed_shutdown would end a request, too. */
	php_module_shutdown();
	sapi_shutdown();
}

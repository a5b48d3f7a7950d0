/* PHP's side of the embedding program: the functions of php_host.h as PHP functions. A callback is
 * any callable; a failure is an exception with the panic's message. */
#include <sapi/embed/php_embed.h>
#include <zend_exceptions.h>

#include "php_host.h"

int host_wait_for_loop(int number);
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
	ZEND_ARG_INFO(0, numbers)
	ZEND_ARG_INFO(0, compare)
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
	PHP_FE(host_open_calls, none)
	PHP_FE(host_stacks_in_use, none)
	PHP_FE_END
};

static zend_module_entry module = {STANDARD_MODULE_HEADER, "host", functions, NULL, NULL, NULL, NULL, NULL, "1", STANDARD_MODULE_PROPERTIES};

static int startup(sapi_module_struct *sapi) {
	return php_module_startup(sapi, &module);
}

int embedded_begin(void) {
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

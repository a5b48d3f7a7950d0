/* Waits of a Rust library suspend Ruby's Fibers: the hooks for upcall, in C.
 *
 * One C file of the extension includes "upcall.h", defines FIBERS_PREFIX as the library's prefix,
 * and includes this file.
 * - fibers_define adds three functions to a module of the extension.
 * - fibers_call calls a Rust function, and fibers_callback calls Ruby from one.
 *
 * Ruby's exceptions are longjmp, and must not skip Rust frames. So they are kept here at the border
 * and raised again when Rust has returned to the extension. Ruby runs on its own stacks only: its
 * garbage collector does not look at those of upcall. */
#ifndef FIBERS_H
#define FIBERS_H

#include <ruby.h>
#include <ruby/thread.h>

#ifndef FIBERS_PREFIX
#define FIBERS_PREFIX upcall_
#endif
#define FIBERS_NAME(name) UPCALL_EXPAND(FIBERS_PREFIX, name)

/* Exported by Ruby, and not declared by its headers. */
int ruby_thread_has_gvl_p(void);

/* The suspended Fibers by their object_id, each with its Thread. Those here are not collected. */
static VALUE fibers_suspended;
static ID fibers_host, fibers_kept, fibers_killed, fibers_suspends_p, fibers_block;
/* The thread has the hooks. Ruby uses a thread of the system for one Thread after the other. */
static __thread int fibers_hooked;

/* ---- exceptions, kept from the border to the end of the Rust call ---- */

static inline VALUE fibers_get(ID of_fiber) { return rb_thread_local_aref(rb_thread_current(), of_fiber); }
static inline void fibers_set(ID of_fiber, VALUE value) { rb_thread_local_aset(rb_thread_current(), of_fiber, value); }

/* Keeps an exception for the running Fiber, or the tag of a `throw`, a `break` or a `Thread#kill`.
 * A tag goes with a value in Ruby's hands, so no Ruby code may run before its end: waits end. */
static inline void fibers_keep(int tag, int kills) {
    VALUE error = rb_errinfo();
    int is_exception = RB_TYPE_P(error, T_OBJECT);
    fibers_set(fibers_kept, is_exception ? error : INT2FIX(tag));
    if (kills || !is_exception)
        fibers_set(fibers_killed, Qtrue);
    if (is_exception)
        rb_set_errinfo(Qnil);
}

static inline void fibers_raise_kept(void) {
    VALUE kept = fibers_get(fibers_kept);
    if (NIL_P(kept))
        return;
    fibers_set(fibers_kept, Qnil);
    fibers_set(fibers_killed, Qnil);
    if (FIXNUM_P(kept))
        rb_jump_tag(FIX2INT(kept));
    rb_exc_raise(kept);
}

/* ---- calls ---- */

/* Whether a wait of the running Fiber can suspend it. */
static inline VALUE fibers_can_suspend(VALUE unused) {
    VALUE host = rb_attr_get(rb_thread_current(), fibers_host);
    (void)unused;
    return NIL_P(host) ? Qfalse : rb_funcall(host, fibers_suspends_p, 0);
}

/* Calls a C function that calls Rust, and then raises the kept exception, if there is one.
 *
 * In a Fiber of a loop, the GVL is held, and waits suspend the Fiber. Elsewhere the GVL is
 * released, and waits block the thread. */
static inline void *fibers_call(void *(*function)(void *), void *argument) {
    void *result;
    /* Objects in registers would be saved on stacks of upcall. This saves them here. */
    __builtin_unwind_init();
    if (RTEST(fibers_can_suspend(Qnil)))
        result = function(argument);
    else
        result = rb_thread_call_without_gvl(function, argument, NULL, NULL);
    fibers_raise_kept();
    return result;
}

struct fibers_callback {
    VALUE (*function)(VALUE);
    VALUE argument;
    int tag;
};

static inline void *fibers_run_callback(void *argument) {
    struct fibers_callback *callback = argument;
    rb_protect(callback->function, callback->argument, &callback->tag);
    if (callback->tag)
        fibers_keep(callback->tag, 0);
    return NULL;
}

/* Calls Ruby from a function that Rust has called, by a downcall. Returns 0, or -1 if an exception
 * is to be raised when Rust has returned. */
static inline int fibers_callback(VALUE (*function)(VALUE), VALUE argument) {
    struct fibers_callback callback = {function, argument, 0};
    if (ruby_thread_has_gvl_p())
        fibers_run_callback(&callback);
    else
        rb_thread_call_with_gvl(fibers_run_callback, &callback);
    return callback.tag ? -1 : 0;
}

/* ---- the hooks ---- */

/* A Fiber is named by its object_id: no object ever has it again, and it stays when the collector
 * moves the Fiber. */
static void *fibers_current_hook(void *data) {
    int tag = 0;
    (void)data;
    if (!ruby_thread_has_gvl_p())
        return NULL;
    VALUE can = rb_protect(fibers_can_suspend, Qnil, &tag);
    if (tag)
        fibers_keep(tag, 1); /* for the hook suspend, called next */
    else if (!RTEST(can))
        return NULL;
    return (void *)NUM2SIZET(rb_obj_id(rb_fiber_current()));
}

static inline VALUE fibers_switch(VALUE id) {
    VALUE thread = rb_thread_current();
    rb_hash_aset(fibers_suspended, id, rb_assoc_new(thread, rb_fiber_current()));
    return rb_funcall(rb_attr_get(thread, fibers_host), fibers_block, 2, ID2SYM(rb_intern("upcall")), Qnil);
}

static int fibers_suspend_hook(void *data, void *coroutine) {
    VALUE id = SIZET2NUM((size_t)coroutine);
    int tag = 0;
    (void)data;
    if (RTEST(fibers_get(fibers_killed)))
        return 1;
    rb_protect(fibers_switch, id, &tag);
    if (tag)
        fibers_keep(tag, 1);
    rb_hash_delete(fibers_suspended, id);
    return tag != 0;
}

/* ---- the functions for the loop, in Ruby ---- */

/* Raises an error of the library. */
static inline void fibers_fail(void) {
    char message[200] = "";
    FIBERS_NAME(last_message)(message, sizeof message);
    rb_raise(rb_eRuntimeError, "%s", message);
}

/* coroutines_install(host): for the calling thread. `host.suspends?` tells whether the running
 * Fiber can be suspended, and `host.block(blocker, timeout)` suspends it. */
static VALUE fibers_install(VALUE module, VALUE host) {
    VALUE thread = rb_thread_current();
    (void)module;
    if (!NIL_P(rb_attr_get(thread, fibers_host)))
        rb_raise(rb_eRuntimeError, "this thread has a loop");
    if (!fibers_hooked && FIBERS_NAME(coroutines_install)(0, NULL, fibers_current_hook, fibers_suspend_hook, NULL) != 0)
        fibers_fail();
    fibers_hooked = 1;
    rb_ivar_set(thread, fibers_host, host);
    return Qnil;
}

/* coroutines_uninstall: waits block the calling thread from now on. */
static VALUE fibers_uninstall(VALUE module) {
    (void)module;
    return rb_ivar_set(rb_thread_current(), fibers_host, Qnil);
}

/* coroutines_fd: readable while a Fiber of the calling thread can go on. */
static VALUE fibers_fd(VALUE module) {
    int fd = FIBERS_NAME(coroutines_fd)();
    (void)module;
    if (fd < 0)
        fibers_fail();
    return INT2NUM(fd);
}

/* coroutines_next_ready: a Fiber of the calling thread that can go on, or nil. */
static VALUE fibers_next_ready(VALUE module) {
    void *id;
    (void)module;
    while (FIBERS_NAME(coroutines_next_ready)(&id) == 1) {
        VALUE found = rb_hash_lookup(fibers_suspended, SIZET2NUM((size_t)id));
        if (!NIL_P(found) && rb_ary_entry(found, 0) == rb_thread_current())
            return rb_ary_entry(found, 1);
    }
    return Qnil;
}

static inline void fibers_define(VALUE module) {
    fibers_suspended = rb_hash_new();
    rb_gc_register_address(&fibers_suspended);
    fibers_host = rb_intern("__upcall_host");
    fibers_kept = rb_intern("__upcall_kept");
    fibers_killed = rb_intern("__upcall_killed");
    fibers_suspends_p = rb_intern("suspends?");
    fibers_block = rb_intern("block");
    rb_define_module_function(module, "coroutines_install", fibers_install, 1);
    rb_define_module_function(module, "coroutines_uninstall", fibers_uninstall, 0);
    rb_define_module_function(module, "coroutines_fd", fibers_fd, 0);
    rb_define_module_function(module, "coroutines_next_ready", fibers_next_ready, 0);
}

#endif

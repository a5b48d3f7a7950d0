/* An extension of Ruby: the module Guest, with functions of the guest library in hosts/guest. */
#include "guest.h"

#include "fibers.h"

struct call {
    int (*function)(struct call *);
    long number;
    void *channel;
    const char *text;
    VALUE block, value;
    int result;
};

static void *run(void *argument) {
    struct call *call = argument;
    call->result = call->function(call);
    return NULL;
}

/* Calls Rust. Raises the exception of a callback or of a killed Fiber, or Rust's error. */
static VALUE called(struct call call) {
    fibers_call(run, &call);
    if (call.result == -1)
        fibers_fail();
    return call.block ? call.value : INT2NUM(call.result);
}

/* ---- functions that wait ---- */

static int sleeps(struct call *call) { return guest_sleep((unsigned)call->number); }
static int sends(struct call *call) { return guest_send(call->channel, (int)call->number); }
static int receives(struct call *call) { return guest_receive(call->channel); }
static int increments(struct call *call) { return guest_increment((int)call->number); }
static int panics(struct call *call) { return guest_panic(call->text); }

static VALUE ruby_sleep(VALUE module, VALUE milliseconds) {
    (void)module;
    return called((struct call){.function = sleeps, .number = NUM2UINT(milliseconds)});
}

/* A channel of numbers, by its address. It stays for the life of the process. */
static VALUE ruby_channel(VALUE module, VALUE capacity) {
    (void)module;
    return SIZET2NUM((size_t)guest_channel_new(NUM2SIZET(capacity)));
}

static VALUE ruby_send(VALUE module, VALUE channel, VALUE number) {
    (void)module;
    return called((struct call){.function = sends, .channel = (void *)NUM2SIZET(channel), .number = NUM2INT(number)});
}

static VALUE ruby_receive(VALUE module, VALUE channel) {
    (void)module;
    return called((struct call){.function = receives, .channel = (void *)NUM2SIZET(channel)});
}

static VALUE ruby_increment(VALUE module, VALUE number) {
    (void)module;
    return called((struct call){.function = increments, .number = NUM2INT(number)});
}

static VALUE ruby_panic(VALUE module, VALUE text) {
    (void)module;
    return called((struct call){.function = panics, .text = StringValueCStr(text)});
}

/* ---- functions that call a block ---- */

static VALUE yield_to(VALUE argument) {
    struct call *call = (struct call *)argument;
    call->value = rb_funcall(call->block, rb_intern("call"), 0);
    return Qnil;
}

static int call_block(void *argument) { return fibers_callback(yield_to, (VALUE)argument); }

static int calls(struct call *call) { return guest_call(call_block, call); }
static int waits_calls_waits(struct call *call) { return guest_wait_call_wait(call_block, call); }

static VALUE ruby_call(VALUE module) {
    (void)module;
    return called((struct call){.function = calls, .block = rb_block_proc(), .value = Qnil});
}

static VALUE ruby_wait_call_wait(VALUE module) {
    (void)module;
    return called((struct call){.function = waits_calls_waits, .block = rb_block_proc(), .value = Qnil});
}

/* ---- for the checks ---- */

static VALUE ruby_open_calls(VALUE module) {
    (void)module;
    return INT2NUM(guest_open_calls());
}

static VALUE ruby_suspended(VALUE module) {
    (void)module;
    return rb_funcall(fibers_suspended, rb_intern("size"), 0);
}

void Init_guest(void) {
    VALUE module = rb_define_module("Guest");
    fibers_define(module);
    rb_define_module_function(module, "sleep", ruby_sleep, 1);
    rb_define_module_function(module, "channel", ruby_channel, 1);
    rb_define_module_function(module, "send", ruby_send, 2);
    rb_define_module_function(module, "receive", ruby_receive, 1);
    rb_define_module_function(module, "increment", ruby_increment, 1);
    rb_define_module_function(module, "panic", ruby_panic, 1);
    rb_define_module_function(module, "call", ruby_call, 0);
    rb_define_module_function(module, "wait_call_wait", ruby_wait_call_wait, 0);
    rb_define_module_function(module, "open_calls", ruby_open_calls, 0);
    rb_define_module_function(module, "suspended", ruby_suspended, 0);
}

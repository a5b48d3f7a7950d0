/* The functions that are measured: src/lib.rs has them in Rust, go/ has the first three in Go. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>

typedef int function(void);
typedef int callback(void *argument);

int bench_upcall(void);
int bench_call(callback *f, void *argument);
void bench_downcalls(function *f, long count);

int bench_bare(void);

#ifndef GO_GUEST
int bench_catch_unwind(void);
int bench_stacker(void);
int bench_body_bare(void);
int bench_body_upcall(void);
int bench_body_catch_unwind(void);
int bench_call_bare(callback *f, void *argument);
void bench_downcalls_pooled(function *f, long count);
void bench_downcalls_bare(function *f, long count);
int bench_register(void *low, size_t size);
size_t bench_lookup(size_t address);
size_t bench_lookup_bare(size_t address);
#endif

#endif

/* The C side of a library written with tokio. fetcher.rs describes each function. */
#ifndef FETCHER_H
#define FETCHER_H

typedef void (*fetcher_done)(void *user, int result);

int fetcher_nap(unsigned milliseconds);
int fetcher_ask(int number);
int fetcher_start(unsigned milliseconds, int number, fetcher_done done, void *user);
int fetcher_each(int count, fetcher_done done, void *user);
int fetcher_sum(int count);
int fetcher_echo(int number);
int fetcher_limited(unsigned milliseconds);
int fetcher_eager(void);
void fetcher_serve_waits(void);
int fetcher_host_is_python(void);

#endif

/* The case of the same name, with allocations protected from removal by the compiler. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static void *t(void*x){ for(int i=0;i<1000;i++) { void *volatile p = malloc(100+i); free(p); } return x; }
int main(void){ unsigned long (*c)(void)=dlsym(RTLD_DEFAULT,"hook_calls"); pthread_t p[4];
 for(int i=0;i<4;i++) pthread_create(p+i,0,t,0); for(int i=0;i<4;i++) pthread_join(p[i],0); t(0);
 printf("hooked mallocs: %lu\n", c?c():0); return 0; }

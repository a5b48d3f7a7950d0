/* Mapping stacks, and running on one. */
#define _GNU_SOURCE
#include "stacks.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "measure.h"

enum { PAGE = 4096 };

void map_stacks(char **lows, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++) {
        char *mapping = mmap(NULL, PAGE + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        require(mapping != MAP_FAILED, "mmap");
        require(mprotect(mapping, PAGE, PROT_NONE) == 0, "mprotect");
        lows[i] = mapping + PAGE;
    }
}

char *map_stacks_for_one(size_t count) {
    char **lows = calloc(count, sizeof *lows);
    require(lows != NULL, "calloc");
    map_stacks(lows, count, STACK_SIZE);
    char *low = lows[count / 2];
    free(lows);
    return low;
}

char *next_base(char *low) {
    static size_t uses;
    return low + STACK_SIZE - uses++ * 272 % PAGE;
}

void on_stack(char *low, void (*body)(void)) {
    ucontext_t here, there;
    require(getcontext(&there) == 0, "getcontext");
    there.uc_stack.ss_sp = low;
    there.uc_stack.ss_size = (size_t)(next_base(low) - low);
    there.uc_link = &here;
    makecontext(&there, body, 0);
    require(swapcontext(&here, &there) == 0, "swapcontext");
}

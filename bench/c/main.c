/* bench CORE main|pthread later|first SCENE [ARGUMENT…]: runs a scene on the main thread or on another, whose first upcall was on its own
   stack, or is the scene's. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "scenes.h"

static const struct {
    const char *name;
    void (*run)(char **arguments);
} scenes[] = {
    {"own", own},         {"foreign", foreign},       {"alternating", alternating},
    {"nested", nested},   {"downcalls", downcalls},   {"threads", threads},
    {"parallel", parallel},
#ifndef GO_GUEST
    {"described", described}, {"count", count},
#endif
};

int main_core;

static void *run(void *arguments_) {
    char **arguments = arguments_;
    if (strcmp(arguments[3], "later") == 0)
        require(bench_upcall() == 0, "the first upcall");
    for (size_t i = 0; i < LENGTH(scenes); i++)
        if (strcmp(arguments[4], scenes[i].name) == 0) {
            scenes[i].run(arguments + 5);
            return NULL;
        }
    require(0, "finding the scene");
    return NULL;
}

int main(int count, char **arguments) {
    require(count >= 5, "counting the arguments");
    main_core = atoi(arguments[1]);
    pin(main_core);
    if (strcmp(arguments[2], "main") == 0) {
        run(arguments);
    } else {
        pthread_t thread;
        require(pthread_create(&thread, NULL, run, arguments) == 0, "pthread_create");
        pthread_join(thread, NULL);
    }
    return 0;
}

/* Objects loaded at run time, from the folder HOST_PLUGINS. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include "host.h"

#ifdef _WIN32

static inline void *open_object(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.dll", getenv("HOST_PLUGINS"), name);
    void *object = LoadLibraryA(path);
    if (!object)
        fprintf(stderr, "%s: error %lu\n", path, GetLastError());
    CHECK(object);
    return object;
}

static inline void *find_symbol(void *object, const char *name) {
    return (void *)GetProcAddress((HMODULE)object, name);
}

static inline void close_object(void *object) { CHECK(FreeLibrary((HMODULE)object)); }

#else
#include <dlfcn.h>

/* Opens an object in the way named by HOST_DLOPEN. */
static inline void *open_object(const char *name) {
    char path[4096];
    const char *way = getenv("HOST_DLOPEN");
    int scope = way && strcmp(way, "Global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL;
    snprintf(path, sizeof path, "%s/%s.so", getenv("HOST_PLUGINS"), name);
    void *object = dlopen(path, RTLD_NOW | scope);
    if (!object)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(object);
    return object;
}

static inline void *find_symbol(void *object, const char *name) { return dlsym(object, name); }

static inline void close_object(void *object) { CHECK(dlclose(object) == 0); }

#endif
#endif

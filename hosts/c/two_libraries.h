/* The C side of the libraries geo and map: see hosts/libraries. */
#ifndef TWO_LIBRARIES_H
#define TWO_LIBRARIES_H

#define UPCALL_PREFIX geo_
#include "upcall.h"
#define UPCALL_PREFIX map_
#include "upcall.h"

typedef int (*library_callback)(void *);

int geo_call(library_callback callback, void *argument);
int geo_panic(const char *message);
int geo_is_in_place(void);
int geo_on_worker(void);
int geo_threads(void);

int map_call(library_callback callback, void *argument);
int map_panic(const char *message);
int map_is_in_place(void);
int map_on_worker(void);
int map_threads(void);

#endif

/* The C++ side of the library geo: see hosts/libraries. */
#pragma once

#define UPCALL_PREFIX geo_
#define UPCALL_NAMESPACE geo
#include "upcall.hpp"

#define UPCALL_PREFIX map_
#define UPCALL_NAMESPACE map
#include "upcall.hpp"

extern "C" {
struct geo_place;

geo_place *geo_place_new(long value);
char *geo_place_name(const geo_place *place);
void geo_place_free(geo_place *place);
void geo_text_free(char *text);
int geo_alive(void);

typedef void (*geo_completion)(void *data, geo_task *task, int status);
geo_task *geo_lookup_now(long value, geo_completion done, void *data);
geo_task *geo_lookup_later(long value, int milliseconds, geo_completion done, void *data);
geo_task *geo_lookup_failing(int milliseconds, geo_completion done, void *data);
geo_task *geo_lookup_panicking(geo_completion done, void *data);
geo_task *geo_lookup_never(geo_completion done, void *data);
geo_task *geo_lookup_refused(geo_completion done, void *data);
int geo_lookup_result(geo_task *task, long *value);
int geo_running(void);

int geo_call(int (*callback)(void *), void *argument);
int geo_panic(const char *message);
int map_panic(const char *message);
}

namespace geo {
/* A second file of the program: messages of one library, by the same inline functions. */
std::string message_elsewhere();
} // namespace geo

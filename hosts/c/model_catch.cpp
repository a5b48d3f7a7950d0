/* The C++ part of model.c: catch blocks, and destructors run by an exception, take the next
 * steps. */
#include "host.h"

#include <exception>

namespace {

struct error {
    int number;
};

int current() {
    if (!std::current_exception())
        return 0;
    try {
        throw;
    } catch (const error &again) {
        return again.number;
    }
}

/* Takes the next steps when it is destroyed. */
struct stepping {
    guest_callback steps;
    void *stream;
    int &answer;
    ~stepping() { answer = steps(stream); }
};

int in_handler(int number, guest_callback steps, void *stream) {
    const int outer = current(), uncaught = std::uncaught_exceptions();
    int answer;
    try {
        throw error{number};
    } catch (const error &caught) {
        answer = steps(stream);
        CHECK(caught.number == number && current() == number && std::uncaught_exceptions() == uncaught);
    }
    CHECK(current() == outer);
    return answer;
}

int in_destructor(int number, guest_callback steps, void *stream) {
    const int outer = current(), uncaught = std::uncaught_exceptions();
    int answer = 0;
    try {
        stepping here{steps, stream, answer};
        throw error{number};
    } catch (const error &caught) {
        CHECK(caught.number == number && current() == number && std::uncaught_exceptions() == uncaught);
    }
    CHECK(current() == outer);
    return answer;
}

} // namespace

extern "C" int model_in_exception(bool caught, int number, guest_callback steps, void *stream) {
    return caught ? in_handler(number, steps, stream) : in_destructor(number, steps, stream);
}

/* Stores the number of the exception being handled, and the number of exceptions in flight. */
extern "C" void model_exceptions(int *number, int *uncaught) {
    *number = current();
    *uncaught = std::uncaught_exceptions();
}

/* Java threads keep guard zones inside the stack bounds known to the system.
 *
 * Native code near the low end of such a stack makes upcalls, and these use all their promised
 * room. Needs a JDK; hosts/tests/java.rs builds it. */
#include "host.h"

#include <jni.h>

static JavaVM *vm;
static int deepest_in_place;

static int use_all(void) {
    struct guest_where where;
    CHECK(guest_where(&where) == 0);
    deepest_in_place += where.own;
    return guest_call_plain(use_most, NULL);
}

/* Recurses down to the address `end`, with upcalls at each page. */
static __attribute__((noinline)) int down(uintptr_t end) {
    volatile char frame[4096];
    frame[0] = frame[4095] = 0;
    CHECK(use_all() == 0);
    return (uintptr_t)frame > end ? down(end) + frame[0] : frame[0];
}

/* A thread of the host's, attached first to upcall or first to the JVM. */
static void *attached(void *upcall_first) {
    JNIEnv *env;
    if (upcall_first)
        CHECK(guest_empty() == 0);
    CHECK((*vm)->AttachCurrentThread(vm, (void **)&env, NULL) == 0);
    /* Leaves the zones' 16 KiB, and room for calls into the JVM from there. */
    down(low_end() + (110 << 10));
    CHECK((*env)->FindClass(env, "java/lang/Object") != NULL);
    CHECK((*vm)->DetachCurrentThread(vm) == 0);
    return NULL;
}

static JNIEnv *create(void) {
    JNIEnv *env;
    JavaVMOption option = {"-Xss512k", NULL};
    JavaVMInitArgs arguments = {JNI_VERSION_1_8, 1, &option, JNI_FALSE};
    CHECK(JNI_CreateJavaVM(&vm, (void **)&env, &arguments) == 0);
    return env;
}

static void hosts_threads(void) {
    create();
    for (size_t size = 256 << 10; size <= 1 << 20; size *= 2) {
        on_thread(NULL, size, attached, NULL);
        on_thread(NULL, size, attached, vm);
    }
    CHECK(deepest_in_place > 0);
}

/* On the main thread, the JVM sets up its zones when it is created. */
static void main_thread(void) {
    char here;
    CHECK(guest_empty() == 0);
    create();
    down((uintptr_t)&here - (400 << 10));
}

int main(int argc, char **argv) {
    static const struct named_case cases[] = {
        {"hosts_threads", hosts_threads},
        {"main_thread", main_thread},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}

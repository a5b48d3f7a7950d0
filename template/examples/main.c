/* Counts the words of a text, and of the files named on the command line. */
#include <inttypes.h>
#include <stdio.h>

#include "{{crate_name}}.h"

static int print(const char *word, uint64_t count, void *user) {
    *(uint64_t *)user += count;
    printf("%4" PRIu64 " %s\n", count, word);
    return 0;
}

static int failed(const char *what) {
    char message[300] = "";
    {{crate_name}}_last_message(message, sizeof message);
    fprintf(stderr, "%s: %s\n", what, message);
    return 1;
}

int main(int argc, char **argv) {
    uint64_t all = 0;
    {{crate_name}}_Words *words = {{crate_name}}_new();
    if (!words)
        return failed("{{crate_name}}_new");
    if ({{crate_name}}_add(words, "the cat and the dog") != 5)
        return failed("{{crate_name}}_add");
    for (int i = 1; i < argc; i++)
        if ({{crate_name}}_add_file(words, argv[i]) < 0)
            return failed("{{crate_name}}_add_file");
    if ({{crate_name}}_each(words, print, &all) != 0)
        return failed("{{crate_name}}_each");
    printf("%4" PRIu64 " words in all\n", all);
    {{crate_name}}_free(words);
    return 0;
}

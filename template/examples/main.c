/* Counts the words of a text, of files, and of a page: main [--fetch SERVER PATH] FILES */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "{{crate_name}}.h"

/* Prints why the last call failed. */
static int failed(const char *what) {
    char message[300] = "";
    {{crate_name}}_last_message(message, sizeof message);
    fprintf(stderr, "%s: %s\n", what, message);
    return 1;
}

/* Called back for each word. */
static int print(const char *word, uint64_t count, void *user) {
    *(uint64_t *)user += count;
    printf("%4" PRIu64 " %s\n", count, word);
    return 0;
}

/* Fetches a page, and waits for it. A program with an event loop passes a function in place of the
 * NULLs, or watches {{crate_name}}_task_fd. */
static int fetch({{crate_name}}_words *words, const char *server, const char *path) {
    size_t added;
    {{crate_name}}_task *task = {{crate_name}}_fetch(server, path, 5000, NULL, NULL);
    if (!task)
        return failed("{{crate_name}}_fetch");
    {{crate_name}}_task_wait(task, -1);
    int status = {{crate_name}}_fetched(words, task, &added);
    if (status != UPCALL_OK)
        failed("{{crate_name}}_fetched");
    {{crate_name}}_task_free(task, 1);
    return status;
}

int main(int argc, char **argv) {
    uint64_t all = 0, count = 0;
    size_t added = 0, length = 0;
    int answer = 0, first = 1;
    {{crate_name}}_words *words = {{crate_name}}_new();
    if (!words)
        return failed("{{crate_name}}_new");
    if ({{crate_name}}_add(words, "the cat and the dog", &added) != UPCALL_OK || added != 5)
        return failed("{{crate_name}}_add");
    if (argc > 3 && strcmp(argv[1], "--fetch") == 0) {
        if (fetch(words, argv[2], argv[3]) != UPCALL_OK)
            return 1;
        first = 4;
    }
    for (int i = first; i < argc; i++)
        if ({{crate_name}}_add_file(words, argv[i], &added) != UPCALL_OK)
            return failed("{{crate_name}}_add_file");
    if ({{crate_name}}_each(words, print, &all, &answer) != UPCALL_OK)
        return failed("{{crate_name}}_each");
    printf("%4" PRIu64 " words in all\n", all);

    /* The same by an iteration, and by an array. */
    const char *word;
    {{crate_name}}_iterator *iterator = {{crate_name}}_iterate(words);
    while ({{crate_name}}_iterator_next(iterator, &word, &count) == 1)
        all -= count;
    {{crate_name}}_iterator_free(iterator);
    uint64_t *counts = {{crate_name}}_counts(words, &length), sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += counts[i];
    {{crate_name}}_memory_free(counts);

    char *most_common = {{crate_name}}_most_common(words);
    if (!most_common || {{crate_name}}_count(words, most_common, &count) != UPCALL_OK)
        return failed("{{crate_name}}_most_common");
    printf("\"%s\" most often, %" PRIu64 " times of %" PRIu64 "\n", most_common, count, all + sum);
    {{crate_name}}_memory_free(most_common);

    {{crate_name}}_free(words);
    /* A mistake is an error, not the end of the process. */
    return {{crate_name}}_add(words, "freed", &added) == UPCALL_ERROR ? 0 : 1;
}

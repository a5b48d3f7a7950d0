<?php
/** The checks of cases.php and coroutines.php. */
declare(strict_types=1);

function check(bool $condition, string $expected): void
{
    if (!$condition) {
        // A callback passes on neither an exception nor exit().
        error_log("expected: $expected\n" . (new Exception())->getTraceAsString());
        posix_kill(posix_getpid(), 9);
    }
}

/** The calls open at the start of a script: none, or the embedding program's call of the script. */
$open = host_open_calls();

/** Checks that all other calls have returned. */
function check_nothing_is_open(): void
{
    global $open;
    check(host_open_calls() === $open, "$open open calls, not " . host_open_calls());
    check(host_stacks_in_use() <= 32, 'no stacks in use but spares, not ' . host_stacks_in_use());
}

/** Checks that a panic is an exception here. The exception does not leave the current callback. */
function panics_with(string $message): bool
{
    try {
        host_panic($message);
    } catch (Exception $exception) {
        return $exception->getMessage() === $message;
    }
    return false;
}

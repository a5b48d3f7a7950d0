<?php
/** `php ffi.php THE_LIBRARY SCRIPT CASE`: defines the functions of php_host.h for a script, by FFI. */
declare(strict_types=1);

$host = FFI::cdef(file_get_contents(__DIR__ . '/src/php_host.h'), $argv[1]);
$host->host_local_begin();

function or_panic(int $result): int
{
    global $host;
    if ($result === -1) {
        $message = $host->new('char[200]');
        $host->host_last_message($message, 200);
        throw new Exception(FFI::string($message));
    }
    return $result;
}

/** A callback for host_call and the others. It ignores its argument. */
function to_c(callable $function): Closure
{
    return fn ($argument): int => $function();
}

function host_call(callable $function): int
{
    global $host;
    return or_panic($host->host_call(to_c($function), null));
}

function host_call_pooled(callable $function): int
{
    global $host;
    return or_panic($host->host_call_pooled(to_c($function), null));
}

function host_catch(callable $function): int|string
{
    global $host;
    $message = $host->new('char[200]');
    $result = or_panic($host->host_catch(to_c($function), null, $message, 200));
    return $result === -2 ? FFI::string($message) : $result;
}

function host_sort(array $numbers, callable $compare): array
{
    global $host;
    $count = count($numbers);
    $sorted = $host->new("int[$count]");
    foreach ($numbers as $at => $number) {
        $sorted[$at] = $number;
    }
    or_panic($host->host_sort($sorted, $count, fn ($a, $b, $argument): int => $compare($a, $b), null));
    return array_map(fn (int $at): int => $sorted[$at], array_keys($numbers));
}

foreach (['host_panic', 'host_wait_for_worker', 'host_wait_for_thread', 'host_wait_for_fiber', 'host_sleep', 'host_channel', 'host_receive'] as $name) {
    eval("function $name(\$argument): int { global \$host; return or_panic(\$host->$name(\$argument)); }");
}
function host_send(int $channel, int $number): int
{
    global $host;
    return or_panic($host->host_send($channel, $number));
}

foreach (['host_open_calls', 'host_stacks_in_use'] as $name) {
    eval("function $name(): int { global \$host; return \$host->$name(); }");
}

$case = $argv[3];
require $argv[2];

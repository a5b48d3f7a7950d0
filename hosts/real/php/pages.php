<?php
/**
 * `php pages.php THE_LIBRARY`: fetches 200 pages from a server in a process of its own, in four ways
 * on one thread: by Rust's client, one page after the other and in Fibers, and by PHP's sockets,
 * the same two ways. Prints the times to stderr.
 */
declare(strict_types=1);

require __DIR__ . '/Coroutines.php';
require __DIR__ . '/EventLoop.php';

const PAGES = 200;
const ROUNDS = 5;

$server = proc_open(['python3', __DIR__ . '/pages.py'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
$address = '127.0.0.1:' . trim(fgets($pipes[1]));

$rust = new Coroutines('int host_fetch(const char *url, char *page, size_t size);', $argv[1], 'host_');
$loop = new EventLoop();
$loop->onReadable($rust->descriptor(), fn () => $rust->runReady());

/** Rust's client. In a Fiber, it suspends the Fiber. */
$by_rust = function (int $number) use ($rust, $address): string {
    $page = $rust->new('char[8192]');
    $length = $rust->host_fetch("http://$address/$number", $page, 8192);
    return FFI::string($page, $length);
};

/** PHP's client. In a Fiber, the loop watches its socket. */
$by_php = function (int $number) use ($loop, $address): string {
    $in_fiber = Fiber::getCurrent() !== null;
    $flags = STREAM_CLIENT_CONNECT | ($in_fiber ? STREAM_CLIENT_ASYNC_CONNECT : 0);
    $socket = stream_socket_client("tcp://$address", $code, $message, 10, $flags);
    if ($in_fiber) {
        stream_set_blocking($socket, false);
        $loop->untilWritable($socket);
    }
    fwrite($socket, "GET /$number HTTP/1.0\r\n\r\n");
    $answer = '';
    while (!feof($socket)) {
        if ($in_fiber) {
            $loop->untilReadable($socket);
        }
        $answer .= fread($socket, 8192);
    }
    return explode("\r\n\r\n", $answer, 2)[1];
};

$one_by_one = fn (Closure $fetch): array => array_map($fetch, range(0, PAGES - 1));
$in_fibers = function (Closure $fetch) use ($loop): array {
    $pages = [];
    foreach (range(0, PAGES - 1) as $number) {
        $loop->queue(function () use ($fetch, $number, &$pages): void {
            $pages[$number] = $fetch($number);
        });
    }
    $loop->run();
    ksort($pages);
    return $pages;
};
$ways = [
    'Rust in Fibers' => fn () => $in_fibers($by_rust),
    'PHP in Fibers' => fn () => $in_fibers($by_php),
    'Rust, one by one' => fn () => $one_by_one($by_rust),
    'PHP, one by one' => fn () => $one_by_one($by_php),
];

$expected = array_map(fn (int $number): string => str_repeat("page $number ", 1 + $number % 300), range(0, PAGES - 1));
$times = [];
foreach (range(1, ROUNDS) as $round) {
    foreach ($ways as $name => $way) {
        $began = hrtime(true);
        if ($way() !== $expected) {
            error_log("$name: other pages");
            exit(1);
        }
        $times[$name][] = (hrtime(true) - $began) / 1e6;
    }
}
fclose($pipes[0]);
$median = function (array $times): string {
    sort($times);
    return sprintf('%.0f ms', $times[intdiv(count($times), 2)]);
};
$shown = array_map(fn (string $name): string => "$name {$median($times[$name])}", array_keys($times));
error_log('figure ' . PAGES . ' pages: ' . implode(', ', $shown));
if (min($times['Rust in Fibers']) > min($times['Rust, one by one'])) {
    error_log('the Fibers waited for each other');
    exit(1);
}
echo "done\n";

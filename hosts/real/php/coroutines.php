<?php
/**
 * Waits in Rust that suspend PHP's Fibers, in an event loop. The cases run through FFI, by
 * Coroutines.php, and in the embedding program, by its hooks in C. At its end, a case prints "done".
 */
declare(strict_types=1);

require __DIR__ . '/checks.php';
require __DIR__ . '/EventLoop.php';

if (isset($host)) {
    require __DIR__ . '/Coroutines.php';
    $host = new Coroutines(file_get_contents(__DIR__ . '/src/php_host.h'), $argv[1], 'host_', keeps: $case === 'kept');
    [$descriptor, $run_ready] = [$host->descriptor(...), $host->runReady(...)];
} else {
    host_coroutines_install();
    [$descriptor, $run_ready] = [host_coroutines_descriptor(...), host_coroutines_run_ready(...)];
}

/** A loop that resumes the Fibers suspended in Rust. */
function new_loop(): EventLoop
{
    global $descriptor, $run_ready;
    $loop = new EventLoop();
    $loop->onReadable($descriptor(), fn () => $run_ready());
    return $loop;
}

/** `$function` for each of these numbers, to be called without an argument. */
function for_each_of(array $numbers, Closure $function): array
{
    return array_map(fn (int $number): Closure => fn () => $function($number), $numbers);
}

/** Runs functions in Fibers, most at one time, to their ends. Returns how many seconds that took. */
function run_all(EventLoop $loop, array $functions): float
{
    $began = hrtime(true);
    $open = $most = 0;
    foreach ($functions as $function) {
        $loop->queue(function () use ($function, &$open, &$most): void {
            $most = max($most, ++$open);
            $function();
            $open--;
        });
    }
    $loop->run();
    // A wait that is ready at once suspends nothing.
    check($open === 0 && 2 * $most > count($functions), "most Fibers to be suspended at one time, not $most");
    return (hrtime(true) - $began) / 1e9;
}

function median(array $numbers): float
{
    sort($numbers);
    return $numbers[intdiv(count($numbers), 2)];
}

/** Each Fiber goes down and up through Rust and PHP, and waits at each level on both ways. */
function down_and_up(int $number, int $levels): int
{
    $call = [host_call(...), host_call_pooled(...)][$levels % 2];
    check(host_wait_for_worker($number) === $number, "wait $number on the way down");
    host_sleep($number % 3);
    $result = $levels === 0 ? $number : $call(fn (): int => down_and_up($number, $levels - 1));
    check(host_wait_for_thread($number) === $number, "wait $number on the way up");
    return $result;
}

/** Started Fibers that wait for the channel for ever, every other in a callback. */
function receivers(int $channel, array &$ends, int $count): array
{
    $receive = function () use ($channel, &$ends): int {
        try {
            host_receive($channel);
            check(false, 'the wait to end otherwise');
        } finally {
            // PHP cannot switch in a destroyed Fiber: this blocks.
            $ends[] = host_wait_for_worker(1);
        }
    };
    $fibers = [];
    foreach (range(1, $count) as $number) {
        $fibers[] = $fiber = new Fiber(function () use ($receive, $number, &$ends): void {
            try {
                $number % 2 ? $receive() : host_call(fn (): int => host_call_pooled($receive));
                check(false, 'the Fiber to unwind');
            } finally {
                $ends[] = 2;
            }
        });
        $fiber->start();
    }
    return $fibers;
}

/** Checks that all ends were reached, and that no receiver is left in Rust. */
function check_ended(int $channel, array $ends, int $count): void
{
    check(count($ends) === 2 * $count && array_sum($ends) === 3 * $count, "both ends of $count Fibers");
    host_send($channel, 5);
    check(host_receive($channel) === 5, 'no other receiver');
    check_nothing_is_open();
}

class SleepsAtItsEnd
{
    public function __construct(public Closure $then)
    {
    }

    public function __destruct()
    {
        check(host_sleep(3) === 0, 'the wait in a destructor');
        ($this->then)();
    }
}

$cases = [
    'sleeps' => function () {
        $loop = new_loop();
        $own = $rust = [];
        foreach (range(1, 7) as $round) {
            $own[] = run_all($loop, array_fill(0, 1000, fn () => $loop->sleep(0.010)));
            $rust[] = run_all($loop, array_fill(0, 1000, fn () => host_sleep(10)));
        }
        [$own, $rust] = [median($own), median($rust)];
        $idle = getenv('UPCALL_IDLE_STACKS') ?: '64';
        error_log(sprintf('figure 1,000 Fibers wait 10 ms each: the loop\'s delay %.1f ms, Rust %.1f ms, ratio %.2f, with %s idle stacks', 1e3 * $own, 1e3 * $rust, $rust / $own, $idle));
        check($rust < 3 * $own, 'waits in Rust to cost less than three delays');
    },
    'main_blocks' => function () {
        $loop = new_loop();
        $turns = 0;
        $loop->delay(0, function () use (&$turns) {
            $turns++;
        });
        check(host_sleep(10) === 0 && host_call(fn () => host_sleep(1) + 7) === 7 && $turns === 0, 'waits in {main} to block');
        $loop->run();
        check($turns === 1, 'the loop to go on');
    },
    'nested' => function () {
        $loop = new_loop();
        $results = [];
        run_all($loop, for_each_of(range(0, 59), function (int $number) use (&$results): void {
            $results[$number] = down_and_up($number, $number % 5);
        }));
        ksort($results);
        check($results === range(0, 59), 'each result');
    },
    'sorts' => function () {
        $loop = new_loop();
        $compare = fn (int $a, int $b): int => host_wait_for_worker($a) <=> host_wait_for_worker($b);
        $sorted = [];
        run_all($loop, for_each_of(range(0, 19), function (int $from) use ($compare, &$sorted): void {
            $sorted[$from] = host_sort(range($from + 9, $from, -1), $compare);
        }));
        foreach ($sorted as $from => $numbers) {
            check($numbers === range($from, $from + 9), "the numbers from $from");
        }
        check(count($sorted) === 20, 'all sorts');
    },
    'messages' => function () {
        $loop = new_loop();
        $received = [];
        $functions = [];
        foreach (range(0, 9) as $pair) {
            [$to, $from] = [host_channel(1 + $pair % 3), host_channel(1)];
            $functions[] = function () use ($to, $from): void {
                foreach (range(1, 100) as $number) {
                    host_send($from, host_receive($to) + 1);
                }
            };
            $functions[] = function () use ($to, $from, &$received): void {
                foreach (range(1, 100) as $number) {
                    host_send($to, $number);
                    $received[] = host_receive($from) - $number;
                }
            };
        }
        run_all($loop, $functions);
        check($received === array_fill(0, 1000, 1), 'an answer to each number');
    },
    'panics' => function () {
        $loop = new_loop();
        $caught = 0;
        run_all($loop, for_each_of(range(1, 40), function (int $number) use (&$caught): void {
            $message = host_catch(function () use ($number): int {
                host_sleep($number % 4);
                check(panics_with("task $number"), 'its own panic');
                return host_sleep(1);
            });
            $caught += $message === "task $number" ? 1 : 0;
        }));
        check($caught === 40, 'each panic at its downcall');
    },
    'destroyed' => function () {
        $channel = host_channel(1);
        $ends = [];
        $fibers = receivers($channel, $ends, 20);
        check($ends === [], 'all to be suspended');
        // By its last reference, and by the garbage collector.
        while (count($fibers) > 10) {
            unset($fibers[count($fibers) - 1]);
        }
        foreach ($fibers as $fiber) {
            $cycle = (object) ['fiber' => $fiber];
            $cycle->itself = $cycle;
        }
        unset($fiber, $cycle, $fibers);
        gc_collect_cycles();
        check_ended($channel, $ends, 20);
    },
    'destroyed_when_ready' => function () use ($run_ready) {
        $channel = host_channel(1);
        $ends = [];
        foreach (range(1, 20) as $round) {
            $fibers = receivers($channel, $ends, 2);
            host_send($channel, $round);
            unset($fibers);
            check(host_receive($channel) === $round, 'the message to be left');
            $run_ready();
        }
        check_ended($channel, $ends, 40);
    },
    'cancelled' => function () {
        $loop = new_loop();
        $ended = false;
        $id = $loop->queue(function () use (&$ended): void {
            try {
                host_sleep(60_000);
            } finally {
                $ended = true;
            }
        });
        $loop->delay(0.005, fn () => $loop->cancel($id));
        $loop->run();
        check($ended, 'the Fiber to be destroyed');
    },
    // Through FFI only.
    'kept' => function () {
        $loop = new_loop();
        $results = [];
        foreach (range(1, 3) as $number) {
            (new Fiber(function () use ($number, &$results): void {
                $results[] = host_wait_for_worker($number) + host_sleep(1);
            }))->start();
        }
        gc_collect_cycles();
        $loop->delay(0.050, fn () => null);
        $loop->run();
        sort($results);
        check($results === [1, 2, 3], 'Fibers that nobody else has to go on');
    },
    'thrown' => function () use ($run_ready) {
        $channel = host_channel(1);
        $ends = [];
        foreach (receivers($channel, $ends, 20) as $number => $fiber) {
            try {
                $fiber->throw(new DomainException("to $number"));
                // The Fiber waits in its `finally`.
                while (!$fiber->isTerminated()) {
                    usleep(100);
                    $run_ready();
                }
                check(false, 'the exception to leave the Fiber');
            } catch (DomainException $exception) {
                check($exception->getMessage() === "to $number", 'the exception as it was thrown');
            }
        }
        check_ended($channel, $ends, 20);
        // Caught in the Fiber, which goes on with other waits.
        $loop = new_loop();
        $caught = false;
        $fiber = new Fiber(function () use ($channel, &$caught): void {
            try {
                host_receive($channel);
            } catch (DomainException) {
                $caught = host_sleep(1) === 0 && host_wait_for_worker(3) === 3;
            }
        });
        $fiber->start();
        $loop->delay(0.002, fn () => $fiber->throw(new DomainException()));
        do {
            $loop->delay(0.010, fn () => null);
            $loop->run();
        } while (!$fiber->isTerminated());
        check($caught, 'waits after the exception');
    },
    'exception_leaves' => function () {
        $loop = new_loop();
        foreach (range(1, 3) as $number) {
            $loop->queue(function () use ($number): void {
                host_call(function () use ($number): int {
                    host_sleep(2);
                    throw new DomainException("from $number");
                });
            });
        }
        $messages = [];
        while (count($messages) < 3) {
            try {
                $loop->run();
            } catch (DomainException $exception) {
                $messages[] = $exception->getMessage();
            }
        }
        sort($messages);
        check($messages === ['from 1', 'from 2', 'from 3'], 'each exception to leave the loop');
        $loop->run();
    },
    'destructor' => function () {
        $loop = new_loop();
        $order = [];
        $note = function (string $event) use (&$order): void {
            $order[] = $event;
        };
        $loop->queue(function () use ($loop, $note): void {
            $loop->delay(0, fn () => $note('delay'));
            new SleepsAtItsEnd(fn () => $note('destructor'));
            host_sleep(10);
            $note('after');
        });
        $loop->run();
        check($order === ['destructor', 'delay', 'after'], 'a wait in a destructor to block: ' . implode(', ', $order));
    },
    'resumed_too_soon' => function () {
        $channel = host_channel(1);
        $result = 0;
        $fiber = new Fiber(function () use ($channel, &$result): void {
            $result = host_receive($channel);
        });
        $fiber->start();
        foreach (range(1, 100) as $time) {
            $fiber->resume();
        }
        host_send($channel, 8);
        $fiber->resume();
        check($fiber->isTerminated() && $result === 8, 'the message in the end');
    },
    'inside' => function () {
        // The loop runs in a callback. Its Fibers' deaths do not concern the Rust function outside.
        $channel = host_channel(1);
        $ends = [];
        check(host_call(function () use ($channel, &$ends): int {
            $fibers = receivers($channel, $ends, 10);
            $loop = new_loop();
            $loop->queue(fn () => host_sleep(5));
            $loop->run();
            check($ends === [], 'the others to be suspended');
            unset($fibers);
            return 7;
        }) === 7, 'the result of the callback');
        check_ended($channel, $ends, 10);
    },
    'forked' => function () {
        $loop = new_loop();
        $sleeping = 0;
        $channel = host_channel(1);
        foreach (range(1, 20) as $number) {
            $loop->queue(function () use ($number, $channel, &$sleeping): void {
                $sleeping++;
                $number % 2 ? host_receive($channel) : host_sleep(200);
                $sleeping--;
            });
        }
        $loop->delay(0, function () use ($loop, $channel, &$sleeping): void {
            check($sleeping === 20, 'all to be suspended');
            $child = pcntl_fork();
            if ($child === 0) {
                global $descriptor, $run_ready;
                $loop->onReadable($descriptor(), fn () => $run_ready());
            }
            $loop->queue(function () use ($channel, $child, &$sleeping): void {
                foreach (range(1, 10) as $number) {
                    host_send($channel, $number);
                }
                host_sleep(400);
                check($sleeping === 0, 'all to go on');
                if ($child === 0) {
                    posix_kill(posix_getpid(), SIGKILL); // Skips PHP's own output.
                }
                pcntl_waitpid($child, $status);
                check(pcntl_wifsignaled($status), 'the child to get there');
            });
        });
        $loop->run();
    },
    'left' => function () {
        global $left;
        $left = suspended_for_ever();
        echo "left\n";
        exit(0);
    },
    'exit' => function () {
        global $left;
        $left = suspended_for_ever();
        (new Fiber(fn () => exit(3)))->start();
    },
    'uncaught' => function () {
        global $left;
        $left = suspended_for_ever();
        throw new DomainException('the end');
    },
    'fatal' => function () use ($run_ready) {
        global $left;
        $left = suspended_for_ever();
        $left[] = $fiber = new Fiber(fn () => host_sleep(1) + trigger_error('the end', E_USER_ERROR));
        $fiber->start();
        while (true) {
            $run_ready();
        }
    },
];

/** Fibers suspended in Rust for good; `finally` blocks end them. */
function suspended_for_ever(): array
{
    $channel = host_channel(1);
    $fibers = [];
    foreach (range(1, 3) as $number) {
        $fibers[] = $fiber = new Fiber(function () use ($channel, $number): void {
            try {
                host_call(fn (): int => $number === 1 ? host_sleep(60_000) : host_receive($channel));
            } finally {
                echo "finally\n";
            }
        });
        $fiber->start();
    }
    return $fibers;
}

// PHP calls this after a fatal error, too.
register_shutdown_function(function () {
    check(host_call(fn () => host_wait_for_worker(5)) === 5, 'Rust to serve calls when the script is over');
    echo "shut down\n";
});
$cases[$case ?? $argv[1]]();
check_nothing_is_open();
echo "done\n";

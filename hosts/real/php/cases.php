<?php
/**
 * The cases. They call Rust, through FFI as defined in ffi.php, or in the embedding program. At its
 * end, a case prints "done".
 */
declare(strict_types=1);

require __DIR__ . '/checks.php';

/**
 * A Fiber that goes down `$levels` callbacks. It is suspended at each, on its way down and up, and
 * returns its number. If it panics at the bottom, the downcall around the bottom raises the panic,
 * and the panic's message is the result there.
 */
function task(int $number, int $levels, bool $panics): Fiber
{
    $bottom = function () use ($number, $panics): int {
        Fiber::suspend();
        if ($panics) {
            check(panics_with("task $number"), 'its own panic');
            Fiber::suspend();
        }
        return $number;
    };
    $at = function (int $level) use (&$at, $bottom, $levels): int|string {
        $call = [host_call(...), host_call_pooled(...)][$level % 2];
        $result = $level < $levels ? $call(fn (): int => $at($level + 1)) : host_catch($bottom);
        Fiber::suspend();
        return is_string($result) ? -1 - (int) substr($result, 5) : $result;
    };
    return new Fiber(function () use ($at, $number, $panics) {
        $result = $at(1);
        check($result === ($panics ? -1 - $number : $number), "the result of task $number, not $result");
        return $number;
    });
}

/** Starts all tasks, and resumes `$next` of the remaining ones until none remains. */
function run(array $tasks, callable $next): void
{
    foreach ($tasks as $task) {
        $task->start();
    }
    while ($tasks) {
        $at = $next(array_keys($tasks));
        $tasks[$at]->resume();
        if ($tasks[$at]->isTerminated()) {
            check($tasks[$at]->getReturn() === $at, "task $at to return its number");
            unset($tasks[$at]);
        }
    }
}

function tasks(int $count, int $levels, bool $panics): array
{
    return array_map(fn ($number) => task($number, 1 + $number % $levels, $panics && $number % 3 === 0), range(0, $count - 1));
}

$waits = [host_wait_for_worker(...), host_wait_for_thread(...), host_wait_for_fiber(...), fn ($n) => host_sleep(1) + $n];

$cases = [
    'a_then_b' => fn () => run(tasks(2, 1, false), fn ($left) => $left[0]),
    'b_then_a' => fn () => run(tasks(2, 1, false), fn ($left) => end($left)),
    'at_random' => function () {
        $any = fn ($left) => $left[mt_rand(0, count($left) - 1)];
        foreach (range(1, 10) as $seed) {
            mt_srand($seed);
            run(tasks($seed === 1 ? 100 : 10, 3, true), $any);
            check_nothing_is_open();
            // The same tasks, inside a callback.
            $result = host_catch(function () use ($seed, $any): int {
                run(tasks(10, 3, true), $any);
                return $seed;
            });
            check($result === $seed, "no panic to leave its Fiber, not $result");
        }
    },
    'waits' => function () use ($waits) {
        foreach ($waits as $number => $wait) {
            check($wait($number) === $number, "wait $number outside");
            check(host_call(fn () => $wait($number)) === $number, "wait $number in a callback");
            // One Fiber is suspended in a callback while the Rust code of the other waits.
            $fibers = array_map(fn ($of) => new Fiber(function () use ($wait, $of) {
                return host_call(function () use ($wait, $of) {
                    check($wait($of) === $of, "fiber $of to wait");
                    Fiber::suspend();
                    return $wait($of + 1);
                });
            }), [10, 20]);
            $fibers[0]->start();
            $fibers[1]->start();
            $fibers[0]->resume();
            $fibers[1]->resume();
            check([$fibers[0]->getReturn(), $fibers[1]->getReturn()] === [11, 21], "wait $number in Fibers");
        }
    },
    'panics' => function () {
        check(panics_with('outside'), 'a panic outside to be an exception');
        $panics = function (): int {
            check(panics_with('inside'), 'a panic in a callback to be an exception');
            return 1;
        };
        check(host_catch($panics) === 'inside', 'the panic to go on at the downcall');
        try {
            host_call($panics);
            check(false, 'host_call to fail');
        } catch (Exception $exception) {
            check($exception->getMessage() === 'inside', 'host_call to fail with the panic');
        }
        check(host_catch(function () use ($panics): int {
            try {
                host_sort([2, 1], fn ($a, $b) => $panics());
            } catch (Exception) {
                return 1;
            }
        }) === 'inside', 'the panic to pass qsort');
    },
    'sorts' => function () {
        $compare = function (int $a, int $b): int {
            Fiber::getCurrent() && Fiber::suspend();
            return host_wait_for_worker($a) <=> host_wait_for_worker($b);
        };
        check(host_sort([3, 1, 2], $compare) === [1, 2, 3], 'numbers to be sorted by callbacks that wait');
        $sort = fn ($from) => new Fiber(fn () => host_sort(range($from + 9, $from, -1), $compare));
        $fibers = array_map($sort, range(0, 19));
        foreach ($fibers as $fiber) {
            $fiber->start();
        }
        mt_srand(1);
        while ($left = array_filter($fibers, fn ($fiber) => !$fiber->isTerminated())) {
            $left[array_rand($left)]->resume();
        }
        foreach ($fibers as $from => $fiber) {
            check($fiber->getReturn() === range($from, $from + 9), "the numbers from $from");
        }
    },
    'generators' => function () {
        $numbers = function (int $from) {
            for ($number = $from;; $number++) {
                yield host_call(fn () => $number);
            }
        };
        [$a, $b] = [$numbers(0), $numbers(100)];
        foreach (range(1, 20) as $turn) {
            $both = fn () => host_call(fn () => $a->current() + $b->current()) + ($b->next() ?? 0);
            check(host_call(function () use ($a, $both) {
                $sum = $both();
                $a->next();
                return $sum;
            }) === 98 + 2 * $turn, "sum $turn");
        }
        // The generator begins in a callback of one Fiber, which is suspended inside it, and
        // continues in a callback of another.
        $suspends = (function () {
            yield host_call(fn () => Fiber::suspend() ?? 1);
            yield host_call(fn () => Fiber::suspend() ?? 2);
        })();
        $one = new Fiber(fn () => host_call(fn () => $suspends->current()));
        $two = new Fiber(fn () => host_call(fn () => $suspends->next() ?? $suspends->current()));
        $one->start();
        $one->resume();
        $two->start();
        $two->resume();
        check([$one->getReturn(), $two->getReturn()] === [1, 2], 'a generator to go from Fiber to Fiber');
    },
    'deep' => function () {
        $down = function (int $levels) use (&$down): int {
            return $levels === 0 ? 0 : host_call(fn () => $down($levels - 1)) + 1;
        };
        check($down(500) === 500, '500 levels');
        $fiber = new Fiber(fn () => $down(500));
        $fiber->start();
        check($fiber->getReturn() === 500, '500 levels in a Fiber');
    },
    'exception' => function () {
        $fiber = new Fiber(fn () => host_call(function (): int {
            Fiber::suspend();
            throw new DomainException('from the callback');
        }));
        $fiber->start();
        try {
            $fiber->resume();
            check(false, 'the exception to leave the Fiber');
        } catch (DomainException $exception) {
            check($exception->getMessage() === 'from the callback', 'the exception as it was thrown');
        }
    },
    'destroyed' => function () {
        $finally = 0;
        $suspended = function () use (&$finally): int {
            try {
                Fiber::suspend();
            } finally {
                $finally = host_wait_for_worker(1);
            }
            return 1;
        };
        $fiber = new Fiber(fn () => host_call($suspended));
        $fiber->start();
        unset($fiber);
        gc_collect_cycles();
        check($finally === 1, '`finally` to be run, and to wait');
    },
    'exit' => function () {
        (new Fiber(fn () => host_call(fn () => exit(3))))->start();
    },
    'fatal' => function () {
        (new Fiber(fn () => host_call(fn () => trigger_error('the end', E_USER_ERROR))))->start();
    },
    'fatal_beside_suspended' => function () {
        $suspended = new Fiber(fn () => host_call(fn () => Fiber::suspend() ?? 1));
        $suspended->start();
        (new Fiber(fn () => host_call(fn () => trigger_error('the end', E_USER_ERROR))))->start();
    },
    'unguarded' => function () {
        host_call_unguarded(fn () => trigger_error('the end', E_USER_ERROR));
    },
    'suspended' => function () {
        check(host_wait_for_loop(5) === 5, 'the loop to answer');
        check(host_call_on_fiber(fn () => host_wait_for_loop(6)) === 6, 'the loop to answer in a callback');
    },
    'event_loop' => function () {
        global $host;
        $fibers = [];
        foreach (range(0, 9) as $number) {
            $fibers[] = $fiber = new Fiber(fn () => host_call(function () use ($host, $number): int {
                $started = $host->host_start($number);
                while (($result = $host->host_ended($started)) === -2) {
                    Fiber::suspend();
                }
                return $result;
            }));
            $fiber->start();
        }
        $descriptor = fopen('php://fd/' . $host->host_local_fd(), 'r');
        while ($left = array_filter($fibers, fn ($fiber) => !$fiber->isTerminated())) {
            [$readable, $none] = [[$descriptor], null];
            check(stream_select($readable, $none, $none, 10) === 1, 'something to be ready');
            $host->host_local_run_ready(PHP_INT_MAX);
            foreach (array_reverse($left) as $fiber) {
                $fiber->resume();
            }
        }
        check(array_map(fn ($fiber) => $fiber->getReturn(), $fibers) === range(0, 9), 'each number');
    },
    'fork' => function () {
        $tasks = tasks(10, 3, true);
        foreach ($tasks as $task) {
            $task->start();
        }
        check(host_wait_for_worker(1) === 1, 'the parent to wait');
        $child = pcntl_fork();
        check(host_wait_for_worker(2) === 2, 'parent and child to wait');
        while ($left = array_filter($tasks, fn ($task) => !$task->isTerminated())) {
            array_walk($left, fn ($task) => $task->resume());
        }
        check(array_map(fn ($task) => $task->getReturn(), $tasks) === range(0, 9), 'the Fibers to go on');
        check_nothing_is_open();
        if ($child === 0) {
            posix_kill(posix_getpid(), 9); // Skips PHP's own output.
        }
        pcntl_waitpid($child, $status);
        check(pcntl_wifsignaled($status), 'the child to get there');
    },
];

// PHP calls this after a fatal error, too.
register_shutdown_function(function () {
    check(host_call(fn () => host_wait_for_worker(5)) === 5, 'Rust to serve calls when the script is over');
    echo "shut down\n";
});
$cases[$case ?? $argv[1]]();
check_nothing_is_open();
echo "done\n";

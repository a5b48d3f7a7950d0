<?php
declare(strict_types=1);

/** A small event loop with Revolt's names. It stands for Revolt in the cases. */
final class EventLoop
{
    /** @var array<int, Fiber> those of `queue` that have not ended */
    private array $fibers = [];
    /** @var array<int, Closure> */
    private array $deferred = [];
    /** Ids of delays, the earliest first. */
    private SplPriorityQueue $delays;
    /** @var array<int, array{resource, Closure}> */
    private array $readable = [], $writable = [];
    /** @var array<int, Closure> the callbacks of delays, by their ids */
    private array $delayed = [];
    private int $ids = 0;

    public function __construct()
    {
        $this->delays = new SplPriorityQueue();
        $this->delays->setExtractFlags(SplPriorityQueue::EXTR_BOTH);
    }

    /** Runs a function in a Fiber, which the loop keeps until its end or until `cancel`. */
    public function queue(Closure $function): int
    {
        $id = $this->ids++;
        $this->fibers[$id] = new Fiber(function () use ($id, $function): void {
            try {
                $function();
            } finally {
                unset($this->fibers[$id]);
            }
        });
        $this->deferred[$id] = fn () => $this->fibers[$id]->start();
        return $id;
    }

    public function defer(Closure $callback): int
    {
        $this->deferred[$this->ids] = $callback;
        return $this->ids++;
    }

    public function delay(float $seconds, Closure $callback): int
    {
        $this->delays->insert($this->ids, -hrtime(true) - (int) ($seconds * 1e9));
        $this->delayed[$this->ids] = $callback;
        return $this->ids++;
    }

    /** @param resource $stream */
    public function onReadable(mixed $stream, Closure $callback): int
    {
        $this->readable[$this->ids] = [$stream, $callback];
        return $this->ids++;
    }

    /** @param resource $stream */
    public function onWritable(mixed $stream, Closure $callback): int
    {
        $this->writable[$this->ids] = [$stream, $callback];
        return $this->ids++;
    }

    /** Forgets a callback or a Fiber. A suspended Fiber is destroyed if nobody else has it. */
    public function cancel(int $id): void
    {
        unset($this->deferred[$id], $this->delayed[$id], $this->readable[$id], $this->writable[$id], $this->fibers[$id]);
    }

    /** Suspends the running Fiber. */
    public function sleep(float $seconds): void
    {
        $this->delay($seconds, Fiber::getCurrent()->resume(...));
        Fiber::suspend();
    }

    /** Suspends the running Fiber until a stream is readable. */
    public function untilReadable(mixed $stream): void
    {
        $id = $this->onReadable($stream, Fiber::getCurrent()->resume(...));
        try {
            Fiber::suspend();
        } finally {
            $this->cancel($id);
        }
    }

    /** Suspends the running Fiber until a stream is writable. */
    public function untilWritable(mixed $stream): void
    {
        $id = $this->onWritable($stream, Fiber::getCurrent()->resume(...));
        try {
            Fiber::suspend();
        } finally {
            $this->cancel($id);
        }
    }

    /** Runs until there is no Fiber of `queue`, no deferred callback and no delay. */
    public function run(): void
    {
        while ($this->fibers || $this->deferred || $this->delayed) {
            foreach (array_keys($this->deferred) as $id) {
                self::take($this->deferred, $id);
            }
            $this->runDelayed();
            if (!$this->deferred && ($this->fibers || $this->delayed)) {
                $this->select();
            }
        }
    }

    private function runDelayed(): void
    {
        while ($this->delays->valid() && -$this->delays->top()['priority'] <= hrtime(true)) {
            self::take($this->delayed, $this->delays->extract()['data']);
        }
    }

    /** Waits for streams, until the first delay is over, and runs the callbacks of streams. */
    private function select(): void
    {
        $timeout = null;
        if ($this->delays->valid()) {
            $timeout = max(0, intdiv(-$this->delays->top()['priority'] - hrtime(true) + 999, 1000));
        }
        $stream = fn (array $watched): mixed => $watched[0];
        $readable = array_map($stream, $this->readable);
        $writable = array_map($stream, $this->writable);
        if (!$readable && !$writable) {
            usleep($timeout ?? 1_000_000);
            return;
        }
        $none = null;
        $seconds = $timeout === null ? null : intdiv($timeout, 1_000_000);
        stream_select($readable, $writable, $none, $seconds, $timeout === null ? null : $timeout % 1_000_000);
        foreach (array_keys($readable) as $id) {
            isset($this->readable[$id]) && $this->readable[$id][1]();
        }
        foreach (array_keys($writable) as $id) {
            isset($this->writable[$id]) && $this->writable[$id][1]();
        }
    }

    /** Calls a callback, unless it was cancelled, and forgets it. */
    private static function take(array &$callbacks, int $id): void
    {
        $callback = $callbacks[$id] ?? null;
        unset($callbacks[$id]);
        $callback && $callback();
    }
}

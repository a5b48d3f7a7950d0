<?php
declare(strict_types=1);

/**
 * A Rust library with upcall: its functions, called by FFI. Their waits suspend the running Fiber,
 * and outside all Fibers they block.
 *
 *     $rust = new Coroutines(file_get_contents('library.h'), 'liblibrary.so', 'library_');
 *     EventLoop::onReadable($rust->descriptor(), fn () => $rust->runReady());
 *     $fiber = new Fiber(fn () => $rust->library_fetch('http://…'));
 *     $fiber->start();
 *
 * The library exports `library_coroutines_install` and the other functions below.
 *
 * `$fiber->throw($exception)` ends a wait: Rust drops the future, and the call of the Rust function
 * throws the exception. A Fiber suspended in Rust is kept alive, unless `keeps` is false. Then PHP
 * destroys one that nobody has any more: Rust drops the future, and `finally` blocks run.
 *
 * Closures among the arguments of a call are C callbacks. An exception may leave them: the call
 * throws it once the Rust function has returned.
 */
final class Coroutines
{
    private const DECLARATIONS = '
        int PREFIXcoroutines_install(unsigned flags, void *data, size_t (*current)(void *data), int (*suspend)(void *data, size_t fiber), void *resume);
        int PREFIXcoroutines_uninstall(unsigned flags);
        int PREFIXcoroutines_fd(void);
        int PREFIXcoroutines_next_ready(size_t *fiber);
    ';

    /** What the hook `suspend` answers. */
    private const GO_ON = 0, END = 1, NOT_SUSPENDED = -1;

    private FFI $library;
    private FFI $php;
    private FFI\CData $ready;
    /** @var array<int, Fiber|WeakReference<Fiber>> the Fibers suspended in Rust, by their ids */
    private array $suspended = [];
    /** @var array<int, ?Throwable> why Rust unwinds, by the Fiber's id; null: it is destroyed */
    private array $ends = [];
    /** Whether the script is over. */
    private bool $over = false;

    /** @param string $prefix the prefix of the library's names, as in its `c_api!` */
    public function __construct(
        string $declarations,
        string $library,
        private readonly string $prefix,
        private readonly bool $keeps = true,
    ) {
        $this->library = FFI::cdef(str_replace('PREFIX', $prefix, self::DECLARATIONS) . $declarations, $library);
        $this->php = FFI::cdef('void zend_throw_graceful_exit(void);');
        $this->ready = $this->library->new('size_t');
        if ($this->own('install', 0, null, self::running(...), $this->suspend(...), null) !== 0) {
            throw new LogicException("{$prefix}coroutines_install: this thread has hooks already");
        }
        // After all other shutdown functions, and also after a fatal error.
        register_shutdown_function(fn () => register_shutdown_function($this->end(...)));
    }

    /** Calls a function of the library, or a method of FFI such as `new`. */
    public function __call(string $function, array $arguments): mixed
    {
        foreach ($arguments as $at => $argument) {
            if ($argument instanceof Closure) {
                $arguments[$at] = $this->callback($argument);
            }
        }
        $result = $this->library->$function(...$arguments);
        if ($this->ends) {
            $this->throwEnd();
        }
        return $result;
    }

    /**
     * A new stream for the event loop, readable while a Fiber can go on. The loop then calls
     * `runReady`; it reads nothing. The child of a fork needs a new one.
     *
     * @return resource
     */
    public function descriptor(): mixed
    {
        return fopen('php://fd/' . $this->own('fd'), 'r');
    }

    /**
     * Resumes Fibers that can go on, at most `$max`. If an exception ends a Fiber, it arrives here;
     * the stream stays readable for the other Fibers.
     */
    public function runReady(int $max = 1000): void
    {
        $ready = FFI::addr($this->ready);
        while ($max-- > 0 && $this->own('next_ready', $ready) === 1) {
            $this->suspended($this->ready->cdata)?->resume();
        }
    }

    /** The Fiber of that id, if it is suspended in Rust and alive. */
    private function suspended(int $id): ?Fiber
    {
        $fiber = $this->suspended[$id] ?? null;
        return $fiber instanceof WeakReference ? $fiber->get() : $fiber;
    }

    private function own(string $name, mixed ...$arguments): int
    {
        return $this->library->{"{$this->prefix}coroutines_$name"}(...$arguments);
    }

    /** The id of the running Fiber; 0 outside. This is also the hook `current`. */
    private static function running(): int
    {
        $fiber = Fiber::getCurrent();
        return $fiber === null ? 0 : spl_object_id($fiber);
    }

    /** The hook of that name. An exception must not leave it. */
    private function suspend($data, int $fiber): int
    {
        if ($this->over || array_key_exists($fiber, $this->ends)) {
            $this->ends[$fiber] ??= null;
            return self::END;
        }
        $answer = self::END;
        $thrown = null;
        $this->suspended[$fiber] = $this->keeps ? Fiber::getCurrent() : WeakReference::create(Fiber::getCurrent());
        try {
            Fiber::suspend();
            $answer = $this->over ? self::END : self::GO_ON;
        } catch (FiberError) {
            // PHP cannot switch in a destructor, and not in a destroyed Fiber.
            $answer = self::NOT_SUSPENDED;
        } catch (Throwable $thrown) {
        } finally {
            unset($this->suspended[$fiber]);
            if ($answer === self::END) {
                $this->ends[$fiber] = $thrown;
            }
            // Also stops PHP's unwinding of a destroyed Fiber, which no `catch` stops.
            return $answer;
        }
    }

    /** A callback left by no exception: the exception is kept until the Rust function has returned. */
    private function callback(Closure $function): Closure
    {
        return function (mixed ...$arguments) use ($function): mixed {
            $ended = true;
            $thrown = $result = null;
            try {
                $result = $function(...$arguments);
                $ended = false;
            } catch (Throwable $thrown) {
            } finally {
                if ($ended) {
                    $this->ends[self::running()] = $thrown;
                }
                return $result;
            }
        };
    }

    /** Throws the exception kept for the running Fiber, or continues the Fiber's destruction. */
    private function throwEnd(): void
    {
        $fiber = self::running();
        if (!array_key_exists($fiber, $this->ends)) {
            return;
        }
        $thrown = $this->ends[$fiber];
        unset($this->ends[$fiber]);
        if ($thrown !== null) {
            throw $thrown;
        }
        $this->php->zend_throw_graceful_exit();
    }

    /** Ends the suspended Fibers: after a fatal error, PHP would free their stacks with Rust's frames. */
    private function end(): void
    {
        $this->over = true;
        foreach (array_keys($this->suspended) as $id) {
            $this->endOne($this->suspended($id));
        }
        $this->own('uninstall', 0);
    }

    private function endOne(?Fiber $fiber): void
    {
        try {
            $fiber?->resume();
        } catch (Throwable $thrown) {
            error_log((string) $thrown);
        } finally {
            return;
        }
    }
}

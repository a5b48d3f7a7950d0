# Loops for Fibers that wait in a Rust library.
#
# `library` is a module with the functions of fibers.h. Make a loop on the root Fiber of its thread;
# this installs the hooks of the thread.

# A loop for plain Fibers. It switches by `transfer` alone, so any Fiber can be suspended: also one
# that a Fiber of the loop has resumed, such as an Enumerator's.
class FiberLoop
  def initialize(library)
    @library = library
    @root = Fiber.current
    @live = {}.compare_by_identity
    @blocked = {}.compare_by_identity
    @ready = []
    library.coroutines_install(self)
    @wakes = IO.for_fd(library.coroutines_fd, autoclose: false)
  end

  # Starts a Fiber. It runs when the loop comes to it.
  def fiber(&block)
    fiber = Fiber.new(blocking: blocking?) do
      block.call
    ensure
      @live.delete(Fiber.current)
    end
    @live[fiber] = true
    unblock(nil, fiber)
    fiber
  end

  # Raises an exception in a suspended Fiber. A wait in Rust ends by it, and so do the calls around.
  def raise_in(fiber, *exception)
    @ready << [fiber, exception]
  end

  # Runs until all Fibers have ended. Raises the exception that ends a Fiber; call it again for the
  # others.
  def run
    run_once until @live.empty?
  end

  # Raises an exception in all Fibers until they have ended.
  def stop(*exception)
    until @live.empty?
      @blocked.each_key { |fiber| raise_in(fiber, *exception) }
      run_once
    end
  end

  # Removes the hooks: waits block the thread again.
  def uninstall = @library.coroutines_uninstall

  # For the hooks: whether a wait suspends the running Fiber.
  def suspends? = !Fiber.current.equal?(@root)

  # For the hooks: suspends the running Fiber. It may return early.
  def block(_blocker, _timeout = nil)
    fiber = Fiber.current
    @blocked[fiber] = true
    @root.transfer
    true
  ensure
    @blocked.delete(fiber)
  end

  # Lets a Fiber of this loop go on.
  def unblock(_blocker, fiber)
    @ready << [fiber, []]
  end

  private

  def blocking? = true

  def run_once
    poll(@ready.empty? ? nil : 0)
    while (fiber = @library.coroutines_next_ready)
      unblock(:upcall, fiber)
    end
    ready, @ready = @ready, []
    while (fiber, exception = ready.shift)
      next unless fiber.alive?
      exception.empty? ? fiber.transfer : fiber.raise(*exception)
    end
  ensure
    @ready.unshift(*ready)
  end

  # Sleeps until a Fiber can go on, or for `timeout` seconds.
  def poll(timeout)
    IO.select([@wakes], nil, nil, timeout)
  end
end

# A small Fiber scheduler, for `Fiber.set_scheduler`. One Fiber at a time may wait for an IO to be
# readable, and one for it to be writable.
class FiberScheduler < FiberLoop
  def initialize(library)
    super
    @timers = []
    @readable = {}
    @writable = {}
    @thread = Thread.current
    @unblocked, @unblock = IO.pipe
  end

  def suspends? = !Fiber.current.blocking?

  # Ruby calls this when the scheduler is replaced, and at the end of the thread.
  def close
    run
    uninstall
  end

  # Returns whether the Fiber was let go on in time.
  def block(blocker, timeout = nil)
    timer = add_timer(timeout) if timeout
    super
    timer.nil? || now < timer[0]
  ensure
    timer[1] = nil if timer
  end

  # Any thread may call this.
  def unblock(blocker, fiber)
    super
    @unblock.write_nonblock(".", exception: false) unless Thread.current.equal?(@thread)
  end

  def kernel_sleep(duration = nil)
    return block(:sleep) if duration.nil?
    till = now + duration
    while (left = till - now) > 0
      block(:sleep, left)
    end
  end

  def io_wait(io, events, timeout = nil)
    waiting = [Fiber.current, 0]
    tables = { IO::READABLE => @readable, IO::WRITABLE => @writable }.select { |event, _| events & event != 0 }
    tables.each_value { |table| table[io] = waiting }
    till = now + timeout if timeout
    block(:io, till && till - now) until waiting[1] != 0 || till && now >= till
    waiting[1] != 0 && waiting[1]
  ensure
    tables.each_value { |table| table.delete(io) }
  end

  private

  def blocking? = false

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  # A timer is a pair: its time, and its Fiber, or nil afterwards.
  def add_timer(duration)
    timer = [now + duration, Fiber.current]
    at = @timers.bsearch_index { |other, _| other > timer[0] } || @timers.size
    @timers.insert(at, timer)
    timer
  end

  def poll(timeout)
    till = @timers.dig(0, 0)
    timeout ||= [till - now, 0].max if till
    sources = [@wakes, @unblocked, *@readable.keys]
    readable, writable = IO.select(sources, @writable.keys, nil, timeout)
    @unblocked.read_nonblock(1000, exception: false) if readable&.include?(@unblocked)
    readable&.each { |io| found(@readable[io], IO::READABLE) }
    writable&.each { |io| found(@writable[io], IO::WRITABLE) }
    time = now
    while @timers.any? && @timers[0][0] <= time
      _, fiber = @timers.shift
      unblock(:timer, fiber) if fiber
    end
  end

  def found(waiting, event)
    return if waiting.nil?
    waiting[1] |= event
    unblock(:io, waiting[0])
  end
end

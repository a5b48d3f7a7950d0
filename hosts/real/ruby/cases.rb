# Usage: ruby -I DIRECTORY-OF-THE-EXTENSION cases.rb CASE loop|scheduler [WAY]
require "guest"
require "io/wait"
require_relative "fibers"

KIND = ARGV[1]

def check(found, expected = true)
  raise "#{found.inspect}, and not #{expected.inspect}" unless expected === found
end

def raises(kind, message = nil)
  yield
rescue kind => error
  check(error.message.include?(message)) if message
  error
else
  raise "no #{kind} was raised"
end

# A loop for the calling thread.
def new_loop(kind = KIND)
  return FiberLoop.new(Guest) if kind == "loop"
  FiberScheduler.new(Guest).tap { |scheduler| Fiber.set_scheduler(scheduler) }
end

def check_over
  check(Guest.suspended, 0)
  check(Guest.open_calls, 0)
  check(Guest.increment(1), 2)
  Guest.sleep(1)
end

def seconds
  before = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  yield
  Process.clock_gettime(Process::CLOCK_MONOTONIC) - before
end

# Runs until `count` Fibers wait in Rust.
def run_until_suspended(host, count)
  host.send(:run_once) until Guest.suspended == count
end

module Cases
  module_function

  # A thousand Fibers wait in Rust, and as many in the `sleep` of the scheduler.
  def sleeps
    host = new_loop
    sleeper = ->(&wait) { seconds { 1000.times { host.fiber(&wait) }; host.run } }
    rust, own = [], []
    7.times do
      rust << sleeper.call { Guest.sleep(10) }
      Thread.new { seconds { FiberScheduler.new(Guest).tap { |own| 1000.times { own.fiber { own.kernel_sleep(0.01) } }; own.close } } }
        .value.then { |took| own << took }
    end
    rust, own = rust.sort[3], own.sort[3]
    puts format("1,000 Fibers wait 10 ms: Rust %.1f ms, Ruby's scheduler %.1f ms, ratio %.2f", rust * 1e3, own * 1e3, rust / own)
    # One after the other, they would take ten seconds.
    check(rust < 3)
    check_over
  end

  def messages
    host = new_loop
    ended = 0
    20.times do |n|
      there, back = Guest.channel(1 + n % 3), Guest.channel(1)
      host.fiber { 300.times { |i| check(Guest.receive(there), i); Guest.send(back, i + 1) }; ended += 1 }
      host.fiber { 300.times { |i| Guest.send(there, i); check(Guest.receive(back), i + 1) }; ended += 1 }
    end
    host.run
    check(ended, 40)
    check_over
  end

  # Threads of Ruby block in Rust without the GVL, and Fibers of this one are suspended.
  def other_threads
    host = new_loop
    there, back = Array.new(10) { Guest.channel(1) }, Array.new(10) { Guest.channel(1) }
    asks = Thread.new { 100.times { |i| there.each { |channel| Guest.send(channel, i) } } }
    hears = Thread.new { 100.times { |i| back.each { |channel| check(Guest.receive(channel), i + 1) } } }
    10.times { |n| host.fiber { 100.times { Guest.send(back[n], Guest.receive(there[n]) + 1) } } }
    host.run
    [asks, hears].each(&:join)
    check_over
  end

  # Ruby, Rust, Ruby, Rust: a wait at each level.
  def nested
    host = new_loop
    descend = lambda do |level|
      Guest.sleep(level % 3)
      garbage = Array.new(100) { |i| "#{level} #{i}" }
      check((level.even? ? Guest.wait_call_wait { descend.call(level - 1) } : Guest.call { descend.call(level - 1) }), level - 1) if level > 0
      check(garbage[99], "#{level} 99")
      GC.start if level == 2
      Guest.sleep(1)
      level
    end
    ended = 0
    30.times { host.fiber { check(descend.call(5), 5); ended += 1 } }
    host.run
    check(ended, 30)
    check_over
  end

  # A Fiber of the loop resumes others in a call by Rust. Those wait, and yield to it.
  def resumed_inside
    host = new_loop
    ended = 0
    20.times do |n|
      host.fiber do
        Guest.call do
          inner = Fiber.new(blocking: KIND == "loop") do
            5.times { |i| Guest.sleep(1); Fiber.yield(Guest.wait_call_wait { Guest.sleep(1); n * i }) }
            :ended
          end
          5.times { |i| check(inner.resume, n * i) }
          check(inner.resume, :ended)
        end
        ended += 1
      end
    end
    host.run
    check(ended, 20)
    check_over
  end

  # A wait suspends the Fiber of an Enumerator, inside that of the loop.
  def enumerators
    host = new_loop
    sums = []
    10.times do |n|
      host.fiber do
        numbers = Enumerator.new { |out| 5.times { |i| Guest.sleep(1); out << n * i } }
        sums << Array.new(5) { numbers.next }.sum
      end
    end
    seen = 0
    host.fiber { 5.times { Guest.sleep(1); seen = [seen, Guest.suspended].max } }
    host.run
    check(sums.sort, Array.new(10) { |n| 10 * n })
    check(seen > 5)
    check_over
  end

  # An exception is raised in Fibers that wait: the futures are dropped, and the Fibers go on.
  def raised
    host = new_loop
    never = Guest.channel(1)
    told = 0
    victims = Array.new(100) do |n|
      host.fiber do
        check(raises(KeyError, "no #{n}") { Guest.receive(never) }.backtrace.any?)
        Guest.sleep(1)
        check(Guest.increment(n), n + 1)
        told += 1
      end
    end
    run_until_suspended(host, 100)
    victims.each_with_index { |fiber, n| host.raise_in(fiber, KeyError, "no #{n}") }
    host.run
    check(told, 100)
    # No receiver is left.
    Guest.send(never, 5)
    check(Guest.receive(never), 5)
    # An exception without a rescue leaves the loop, and `stop` ends the others.
    fibers = Array.new(3) { host.fiber { Guest.receive(never) } }
    run_until_suspended(host, 3)
    host.raise_in(fibers[1], IOError, "left")
    raises(IOError, "left") { host.run }
    check(Guest.suspended, 2)
    2.times { raises(IOError, "stopped") { host.stop(IOError, "stopped") } }
    host.stop
    check_over
  end

  # The exception goes through several calls. Rust in between does not go on.
  def raised_nested
    host = new_loop
    never = Guest.channel(1)
    log = []
    whole = lambda do |rescuing|
      Guest.call do
        Guest.wait_call_wait do
          log << :receives
          Guest.receive(never)
        rescue KeyError
          log << :rescued
          raise unless rescuing
        ensure
          log << :inner
        end
      ensure
        log << :outer
      end
    end
    fiber = host.fiber do
      raises(KeyError, "through") { whole.call(false) }
      check(log, [:receives, :rescued, :inner, :outer])
      # Ruby may rescue it in between. The calls around end all the same: Rust is unwinding.
      log.clear
      raises(RuntimeError) { whole.call(true) }
      check(log, [:receives, :rescued, :inner, :outer])
      check(Guest.call { Guest.wait_call_wait { 6 } }, 6)
      log << :over
    end
    2.times do
      host.send(:run_once) until log == [:receives] && Guest.suspended == 1
      host.raise_in(fiber, KeyError, "through")
      host.send(:run_once)
    end
    host.run
    check(log.last, :over)
    check_over
  end

  # What leaves a block called by Rust leaves the call when Rust has returned.
  def callback_leaves
    host = new_loop
    all = lambda do
      raises(KeyError, "mine") { Guest.call { raise KeyError, "mine" } }
      raises(KeyError, "mine") { Guest.wait_call_wait { Guest.call { Guest.sleep(1); raise KeyError, "mine" } } }
      check(catch(:out) { Guest.wait_call_wait { Guest.sleep(1); throw :out, 5 } }, 5)
      check(Guest.call { break 6 }, 6)
      check(Guest.call { raises(KeyError) { Guest.wait_call_wait { raise KeyError } }; Guest.sleep(1); 4 }, 4)
      check(Guest.call { check(Guest.call { break 5 }, 5); Guest.sleep(1); 6 }, 6)
      check(Guest.call { Guest.increment(6) }, 7)
    end
    all.call
    ended = 0
    20.times { host.fiber { 5.times { all.call }; ended += 1 } }
    host.run
    check(ended, 20)
    check_over
  end

  def panics
    host = new_loop
    all = lambda do
      raises(RuntimeError, "plain") { Guest.panic("plain") }
      # The panic continues at the downcall, whatever Ruby does.
      raises(RuntimeError, "inner") { Guest.wait_call_wait { raises(RuntimeError) { Guest.panic("inner") }; Guest.sleep(1) } }
      Guest.sleep(1)
    end
    all.call
    ended = 0
    20.times { host.fiber { all.call; ended += 1 } }
    host.run
    check(ended, 20)
    check_over
  end

  # Outside the loop's Fibers, a wait blocks the thread, and other threads of Ruby go on.
  def outside
    turns = 0
    other = Thread.new { loop { turns += 1; sleep 0.001 } }
    blocks = lambda do
      before = turns
      Guest.sleep(50)
      Guest.call { Guest.sleep(50) }
      check(turns - before > 5)
    end
    blocks.call
    Fiber.new(&blocks).resume
    host = new_loop
    blocks.call
    Fiber.new(blocking: true, &blocks).resume if KIND == "scheduler"
    host.fiber { Guest.sleep(1) }
    host.run
    host.uninstall
    if KIND == "loop"
      Fiber.new(&blocks).resume
      host = new_loop
    end
    other.kill.join
    check_over
  end

  # Nobody has references to the Fibers, and the collector runs and moves objects.
  def collected
    host = new_loop
    channels = Array.new(50) { Guest.channel(1) }
    begun = ended = 0
    channels.each_with_index do |channel, n|
      host.fiber do
        text = "number #{n}"
        check(Guest.wait_call_wait { begun += 1; Guest.receive(channel).to_s + text }, "5" + text)
        ended += 1
      end
    end
    host.send(:run_once) until begun == 50 && Guest.suspended == 50
    3.times do
      Array.new(10_000) { Object.new }
      GC.start
      GC.compact if GC.respond_to?(:compact)
    end
    channels.each { |channel| Guest.send(channel, 5) }
    host.run
    check(ended, 50)
    check_over
  end

  # A child has this thread's suspended Fibers, and both processes run them to their ends.
  def forked
    host = new_loop
    channels = Array.new(30) { Guest.channel(1) }
    sum = 0
    channels.each { |channel| host.fiber { number = Guest.receive(channel); sum += number } }
    20.times { host.fiber { Guest.sleep(50); sum += 100 } }
    run_until_suspended(host, 50)
    finish = lambda do |number|
      channels.each { |channel| Guest.send(channel, number) }
      10.times { host.fiber { Guest.sleep(5); sum += 100 } }
      host.run
      check(sum, 30 * number + 3000)
      check_over
    end
    child = fork { finish.call(2) }
    finish.call(1)
    check(Process.wait2(child)[1].success?)
  end

  # The process ends while Fibers wait in Rust.
  def ends
    way = ARGV[2]
    # Ruby runs a scheduler until its Fibers have ended, except at `exit!` and after a signal.
    ends = KIND == "scheduler" && ["exit", "raise"].include?(way)
    child = fork do
      host = new_loop
      never = Guest.channel(1)
      50.times { |n| host.fiber { ends ? Guest.sleep(20 + n) : Guest.wait_call_wait { Guest.receive(never) } } }
      run_until_suspended(host, 50) unless ends
      $stderr.reopen(File::NULL) if way == "raise"
      case way
      when "exit" then exit(3)
      when "raise" then raise "uncaught"
      when "exit!" then exit!(3)
      when "signal" then Process.kill(:KILL, $$)
      end
    end
    status = Process.wait2(child)[1]
    check({ "exit" => 3, "raise" => 1, "exit!" => 3, "signal" => nil }[way].inspect, status.exitstatus.inspect)
    check(status.termsig, way == "signal" ? 9 : nil)
  end

  # Ruby runs the schedulers of ending threads, and a thread with suspended plain Fibers just ends.
  def thread_ends
    3.times do
      ended = 0
      Thread.new { new_loop; 20.times { Fiber.schedule { Guest.call { Guest.sleep(10) }; ended += 1 } } }.join
      check(ended, 20)
      check(Guest.suspended, 0)
    end
    never = Guest.channel(1)
    Thread.new do
      host = new_loop("loop")
      20.times { host.fiber { Guest.receive(never) } }
      run_until_suspended(host, 20)
    end.join
    GC.start
    # Their stacks stay: Rust may have addresses there.
    check(Guest.suspended, 20)
    Guest.send(never, 1)
    Thread.new { host = new_loop("loop"); host.fiber { Guest.sleep(5) }; host.run }.join
  end

  # Ruby's own waits, and those of Rust, in one scheduler.
  def scheduled
    new_loop
    log = []
    queue, mutex = Queue.new, Mutex.new
    input, output = IO.pipe
    idle, = IO.pipe
    channel = Guest.channel(1)
    Fiber.schedule { log << queue.pop; mutex.synchronize { Guest.send(channel, 7) } }
    Fiber.schedule { log << Guest.receive(channel); output.puts("line"); output.close }
    Fiber.schedule { log << input.gets; log << Thread.new { Guest.sleep(5); :thread }.value }
    Fiber.schedule { mutex.synchronize { Guest.sleep(5); sleep(0.005) }; queue << :popped }
    # A wait of Rust inside a timeout of Ruby's scheduler, and a sleep inside a call by Rust.
    Fiber.schedule { check(Guest.wait_call_wait { sleep(0.01); idle.wait_readable(0.005); 8 }, 8) }
    Fiber.set_scheduler(nil)
    check(log, [:popped, 7, "line\n", :thread])
    check_over
  end
end

Cases.send(ARGV[0])
puts "done"

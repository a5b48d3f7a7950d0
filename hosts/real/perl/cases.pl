# Usage: perl cases.pl LIBRARY CASE
use strict;
use warnings;
use lib ".";
use FFI::Platypus 2.00;
use FFI::Platypus::Buffer;
use POSIX ();
use Time::HiRes qw(time);
use CoroWaits;
use Coro;
use Coro::Timer;

my ($library, $case, @ways) = @ARGV;
my $ffi = FFI::Platypus->new(api => 2, lib => $library);
my $waits = CoroWaits->new($ffi, "upcall_");
my %guest = map { $_->[0] => $ffi->function("guest_$_->[0]" => $_->[1] => $_->[2]) } (
    [sleep => ['uint'] => 'int'],
    [channel_new => ['size_t'] => 'opaque'],
    [send => ['opaque', 'int'] => 'int'],
    [receive => ['opaque'] => 'int'],
    [increment => ['int'] => 'int'],
    [panic => ['string'] => 'int'],
    [call => ['(opaque)->int', 'opaque'] => 'int'],
    [wait_call_wait => ['(opaque)->int', 'opaque'] => 'int'],
    [open_calls => [] => 'int'],
);

sub rust { my $name = shift; $waits->call($guest{$name}, @_) }

# Calls code by Rust, and returns its result.
sub through {
    my ($name, $code) = @_;
    my $result;
    my $closure = $ffi->closure(CoroWaits::callback(sub { $result = $code->() }));
    rust($name, $closure, undef);
    return $result;
}

sub check { my ($found, $expected) = @_; $found eq $expected or die "$found, and not $expected, at line " . (caller)[2] . "\n" }

sub raises {
    my ($message, $code) = @_;
    eval { $code->(); 1 } and die "nothing was raised, at line " . (caller)[2] . "\n";
    index($@, $message) >= 0 or die "$@, and not $message, at line " . (caller)[2] . "\n";
}

sub check_over {
    check(scalar(keys %CoroWaits::suspended), 0);
    check(rust('open_calls'), 0);
    check(rust(increment => 1), 2);
    rust(sleep => 1);
}

sub seconds { my $before = time; $_[0]->(); time - $before }
sub all { $_->join for map { my $code = $_; async { $code->() } } @_ }
sub cede_until_suspended { Coro::Timer::sleep(0.001) until keys %CoroWaits::suspended == $_[0] }

my %cases;

# A thousand coros wait in Rust, and as many in the sleep of Coro::Timer.
$cases{sleeps} = sub {
    my (@rust, @own);
    for (1 .. 7) {
        push @rust, seconds(sub { all((sub { rust(sleep => 10) }) x 1000) });
        push @own, seconds(sub { all((sub { Coro::Timer::sleep(0.01) }) x 1000) });
    }
    my ($rust, $own) = map { (sort { $a <=> $b } @$_)[3] } \@rust, \@own;
    printf "1,000 coros wait 10 ms: Rust %.1f ms, Coro::Timer %.1f ms, ratio %.2f\n", $rust * 1e3, $own * 1e3, $rust / $own;
    # One after the other, they would take ten seconds.
    $rust < 3 or die "$rust seconds";
};

$cases{messages} = sub {
    all(map {
        my ($there, $back) = (rust(channel_new => 1 + $_ % 3), rust(channel_new => 1));
        (sub { for (0 .. 299) { check(rust(receive => $there), $_); rust(send => $back, $_ + 1) } },
         sub { for (0 .. 299) { rust(send => $there, $_); check(rust(receive => $back), $_ + 1) } })
    } 1 .. 20);
};

# Perl, Rust, Perl, Rust: a wait at each level.
sub descend {
    my ($level) = @_;
    rust(sleep => $level % 3);
    my @texts = map { "$level $_" } 1 .. 50;
    check(through($level % 2 ? 'call' : 'wait_call_wait', sub { descend($level - 1) }), $level - 1) if $level;
    check($texts[49], "$level 50");
    rust(sleep => 1);
    return $level;
}
$cases{nested} = sub { all((sub { check(descend(5), 5) }) x 30) };

# An exception is raised in coros that wait: the futures are dropped, and the coros go on.
$cases{thrown} = sub {
    my $never = rust(channel_new => 1);
    my $told = 0;
    my @victims = map { my $n = $_; async {
        raises("no $n;", sub { rust(receive => $never) });
        rust(sleep => 1);
        check(rust(increment => $n), $n + 1);
        # It goes through the calls around, too, and Rust in between does not go on.
        my @log;
        raises("again $n;", sub { through(call => sub {
            through(wait_call_wait => sub { $told++; eval { rust(receive => $never) }; push @log, "inner"; die $@ });
        }) });
        check("@log", "inner");
        check(rust(increment => $n), $n + 1);
    } } 1 .. 100;
    cede_until_suspended(100);
    $victims[$_ - 1]->throw("no $_;"), $victims[$_ - 1]->ready for 1 .. 100;
    Coro::Timer::sleep(0.001) until $told == 100 && keys %CoroWaits::suspended == 100;
    $victims[$_ - 1]->throw("again $_;"), $victims[$_ - 1]->ready for 1 .. 100;
    $_->join for @victims;
    # No receiver is left.
    rust(send => $never, 5);
    check(rust(receive => $never), 5);
};

$cases{callback_dies} = sub {
    my $all = sub {
        raises("mine", sub { through(call => sub { die "mine" }) });
        raises("mine", sub { through(wait_call_wait => sub { rust(sleep => 1); die "mine" }) });
        check(through(call => sub { raises("mine", sub { through(wait_call_wait => sub { die "mine" }) }); rust(sleep => 1); 4 }), 4);
    };
    $all->();
    all(($all) x 20);
};

$cases{panics} = sub {
    my $all = sub {
        raises("plain", sub { rust(panic => "plain") });
        # The panic continues at the downcall, whatever Perl does.
        raises("inner", sub { through(wait_call_wait => sub { raises("inner", sub { rust(panic => "inner") }); rust(sleep => 1) }) });
    };
    $all->();
    all(($all) x 20);
};

# In the main program and in the loop's callbacks, a wait blocks the thread.
$cases{outside} = sub {
    my $turns = 0;
    my $other = async { while () { $turns++; Coro::Timer::sleep(0.001) } };
    my $blocks = sub { my $before = $turns; rust(sleep => 30); through(call => sub { rust(sleep => 5) }); check($turns, $before) };
    $blocks->();
    my $called = 0;
    my $timer = EV::timer 0.005, 0, sub { $blocks->(); $called++ };
    Coro::Timer::sleep(0.05);
    check($called, 1);
    async { my $before = $turns; rust(sleep => 30); $turns > $before + 3 or die "$turns" }->join;
    $other->cancel;
};

# A child has the suspended coros, and both processes run them to their ends.
$cases{forked} = sub {
    my @channels = map { rust(channel_new => 1) } 1 .. 30;
    my $sum = 0;
    my @coros = map { my $channel = $_; async { my $number = rust(receive => $channel); $sum += $number } } @channels;
    push @coros, map { async { rust(sleep => 50); $sum += 100 } } 1 .. 20;
    cede_until_suspended(50);
    my $child = fork // die;
    CoroWaits::forked() unless $child;
    my $number = $child ? 1 : 2;
    rust(send => $_, $number) for @channels;
    all((sub { rust(sleep => 5); $sum += 100 }) x 10);
    $_->join for @coros;
    check($sum, 30 * $number + 3000);
    check_over();
    POSIX::_exit(0) unless $child;
    waitpid $child, 0;
    check($?, 0);
};

# The process ends while coros wait in Rust.
$cases{ends} = sub {
    my $child = fork // die;
    if (!$child) {
        CoroWaits::forked();
        my $never = rust(channel_new => 1);
        my @coros = map { async { through(wait_call_wait => sub { rust(receive => $never) }) } } 1 .. 50;
        cede_until_suspended(50);
        exit 3 if $ways[0] eq 'exit';
        POSIX::_exit(3) if $ways[0] eq '_exit';
        close STDERR;
        die "uncaught";
    }
    waitpid $child, 0;
    $? & 127 and die "ended by signal " . ($? & 127);
    ($? >> 8) == 3 || $ways[0] eq 'die' or die "ended with " . ($? >> 8);
};

$cases{$case}->();
check_over();
print "done\n";

# Waits of a Rust library suspend the coros of Coro, in the loop of EV.
#
# Exceptions of Perl are longjmp, and must not skip Rust frames. So they are kept here at the border,
# and raised again when Rust has returned.
package CoroWaits;
use strict;
use warnings;
use Coro;
use Coro::EV;
use EV;
use FFI::Platypus::Buffer ();

our %suspended;    # the suspended coros, by numbers that are not used again
my $last = 0;
my %kept;          # for each coro, the exception to be raised when Rust has returned
my %killed;        # for each coro, whether its waits end

# new(FFI::Platypus, prefix): installs the hooks for the thread.
sub new {
    my ($class, $ffi, $prefix) = @_;
    # Each coro that waits in C has a C stack. Coro keeps this many for the next ones.
    Coro::State::cctx_max_idle(1000);
    my $self = bless {}, $class;
    my $function = sub { $ffi->function($prefix . $_[0] => $_[1] => $_[2]) };
    $self->{message} = $function->(last_message => ['opaque', 'size_t'] => 'int');
    $self->{next} = $function->(coroutines_next_ready => ['opaque*'] => 'int');
    my $current = $ffi->closure(\&_current);
    my $suspend = $ffi->closure(\&_suspend);
    my $install = $function->(
        coroutines_install => ['uint', 'opaque', '(opaque)->opaque', '(opaque,opaque)->int', 'opaque'] => 'int');
    $install->call(0, undef, $current, $suspend, undef) == 0 or die "the thread has hooks";
    $self->{hooks} = [$current, $suspend];
    my $fd = $function->(coroutines_fd => [] => 'int')->call;
    die "there is no descriptor" if $fd < 0;
    $self->{watcher} = EV::io $fd, EV::READ, sub { $self->_make_ready };
    return $self;
}

sub _make_ready {
    my ($self) = @_;
    while ($self->{next}->call(\my $number) == 1) {
        my $coro = $suspended{$number} or next;
        $coro->ready;
    }
}

# In the child of a fork: EV looks at the descriptors anew.
sub forked { EV::default_loop->loop_fork }

# The coro with the loop cannot wait for it, nor can the main program, which may run the loop.
sub can_suspend { $Coro::current != $Coro::idle && $Coro::current != $Coro::main }

sub _current { can_suspend() ? ++$last : undef }

sub _suspend {
    my (undef, $number) = @_;
    my $coro = $Coro::current;
    return 1 if $killed{$coro + 0};
    $suspended{$number} = $coro;
    my $goes_on = eval { Coro::schedule; 1 };
    delete $suspended{$number};
    return 0 if $goes_on;
    $kept{$coro + 0} = [$@];
    $killed{$coro + 0} = 1;
    return 1;
}

# call(function, arguments): calls a Rust function, and raises the kept exception, if there is one.
sub call {
    my ($self, $function, @arguments) = @_;
    my $result = $function->call(@arguments);
    my $coro = $Coro::current + 0;
    delete $killed{$coro};
    if (my $kept = delete $kept{$coro}) { die $kept->[0] }
    die $self->message . "\n" if defined $result && $result == -1;
    return $result;
}

# callback(code): a function for Rust to call in a downcall. It returns 0, or -1 after an exception.
sub callback {
    my ($code) = @_;
    return sub {
        eval { $code->(); 1 } and return 0;
        $kept{ $Coro::current + 0 } = [$@];
        return -1;
    };
}

sub message {
    my ($self) = @_;
    my $text = "\0" x 200;
    my ($pointer) = FFI::Platypus::Buffer::scalar_to_buffer($text);
    $self->{message}->call($pointer, length $text);
    return $text =~ s/\0.*//sr;
}

1;

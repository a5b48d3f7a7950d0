# Puts a copy of a binding crate on upcall. Usage: `perl edit.pl rusqlite|git2 FOLDER`. Prints the
# number of edits, and dies if a place was missed.
use strict;
use warnings;
use File::Find;

my ($crate, $folder) = @ARGV;
my $braces = qr/(\{(?:[^{}]++|(?-1))*+\})/;
my $parentheses = qr/(\((?:[^()]++|(?-1))*+\))/;
my %edited = (trampolines => 0, calls => 0);

sub each_source {
    my ($edit) = @_;
    my @files;
    find(sub { push @files, $File::Find::name if /\.rs$/ }, "$folder/src");
    for my $file (sort @files) {
        my $text = read_file($file);
        my $before = $text;
        $text = $edit->($text, $file);
        write_file($file, $text) if $text ne $before;
    }
}

sub read_file {
    my ($file) = @_;
    open my $in, '<', $file or die "$file: $!";
    local $/;
    return <$in>;
}

sub write_file {
    my ($file, $text) = @_;
    open my $out, '>', $file or die "$file: $!";
    print $out $text;
    close $out or die "$file: $!";
}

# Edits a function called by C: its body becomes an upcall. If the function returns a number, C gets
# SQLITE_ERROR after a panic.
sub trampoline {
    my ($head, $body) = @_;
    $edited{trampolines}++;
    return $head . $body if $body =~ s/\bcatch_unwind\(/crate::crossing::enter(/g;
    my $on_panic = $head =~ /\)\s*->\s*c_int\b/ ? 'crate::ffi::SQLITE_ERROR' : '()';
    return "$head\{ crate::crossing::enter(move || $body).unwrap_or($on_panic) \}";
}

# C functions that may call back: they run or end statements, and take or free closures.
my $calls_back = join '|', qw(
    step prepare_v2 prepare_v3 finalize reset open_v2 close exec blob_open blob_reopen blob_read blob_write blob_close
    backup_init backup_step backup_finish wal_checkpoint wal_checkpoint_v2 serialize deserialize load_extension
    declare_vtab create_module_v2 create_function_v2 create_window_function create_collation_v2 set_authorizer
    commit_hook rollback_hook update_hook preupdate_hook progress_handler trace trace_v2 profile db_cacheflush
    db_release_memory table_column_metadata bind_pointer set_auxdata unlock_notify log
);

sub rusqlite {
    write_file("$folder/src/crossing.rs", <<'RUST');
/// An upcall whose panic is this crate's own error, and nobody else's.
#[inline]
pub fn enter<R>(f: impl FnOnce() -> R) -> Result<R, upcall::UpcallError> {
    upcall::entry().keep_panic().enter(f)
}
RUST
    each_source(sub {
        my ($text, $file) = @_;
        return $text if $file =~ m{/crossing\.rs$};
        $text =~ s/^mod auto_extension;/mod auto_extension;\nmod crossing;/m or $text =~ s/^mod bind;/mod bind;\nmod crossing;/m
            if $file =~ m{/src/lib\.rs$};
        $text =~ s~((?:unsafe )?extern "C" fn \w+[^;\{]*)$braces~trampoline($1, $2)~ge;
        # One trampoline calls a function written by users.
        $edited{trampolines} += $text =~ s/\bcatch_unwind\(\|\|/crate::crossing::enter(||/g;
        $text =~ s/^(\s*)use std::panic::catch_unwind;\n//mg;
        $text =~ s/use std::panic::\{catch_unwind, /use std::panic::{/;
        $edited{calls} += $text =~ s/\bffi::(sqlite3_(?:$calls_back))$parentheses/::upcall::downcall(|| ffi::$1$2)/g;
        die "$file: catch_unwind is left" if $text =~ /^(?!\s*\/\/).*\bcatch_unwind\(/m;
        return $text;
    });
}

sub git2 {
    my $panic = "$folder/src/panic.rs";
    die "$panic: not as expected" unless read_file($panic) =~ /pub fn wrap.*pub fn check\(\).*pub fn panicked\(\)/s;
    write_file($panic, <<'RUST');
/// An upcall. When it panics, C is to return soon, and the panic goes on at the downcall around C.
pub fn wrap<T, F: FnOnce() -> T + std::panic::UnwindSafe>(f: F) -> Option<T> {
    upcall::entry().refuse_after_panic().enter(f).ok()
}

/// A downcall has raised it.
pub fn check() {}

pub fn panicked() -> bool {
    upcall::panic_is_pending()
}
RUST
    each_source(sub {
        my ($text, $file) = @_;
        $edited{trampolines} += () = $text =~ /\bpanic::wrap\(/g;
        my $uses = () = $text =~ /\b(?:try_)?call!\s*\(/g;
        $edited{calls} += $uses;
        return $text unless $file =~ m{/call\.rs$};
        my $arguments = qr/\(\$\(crate::call::convert\(&\$e\)\),\*\)/;
        # An argument may have a `?`. It must leave the closure.
        my $macros = $text =~ s/c_try\(raw::\$p($arguments)\)/c_try(::upcall::downcall(|| -> Result<_, crate::Error> { Ok(raw::\$p$1) })?)/;
        $macros += $text =~ s/^(\s*)raw::\$p($arguments)/$1::upcall::downcall(|| raw::\$p$2)/m;
        die "$file: $macros macros in place of 2" unless $macros == 2;
        return $text;
    });
}

$crate eq 'rusqlite' ? rusqlite() : git2();
print "$crate: $edited{trampolines} trampolines and $edited{calls} calls of C edited\n";

#!/usr/bin/env bash
# Builds the extension and starts a server on a socket in a temporary folder. Then runs the cases,
# each in a session, so in its own process.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target/hosts}" RUST_BACKTRACE=0
bin=/usr/lib/postgresql/15/bin
if ! [ -x $bin/postgres ]; then
    echo "SKIPPED: PostgreSQL 15 is not installed (apt-get install $(cat packages))"
    exit 77
fi
echo "version $($bin/postgres --version)"

# The server's headers. Their package depends on a compiler of 200 MB, not needed here. So it is
# only unpacked.
build=$CARGO_TARGET_DIR/postgres
mkdir -p "$build"
headers=/usr/include/postgresql/15/server
if ! [ -e $headers/postgres.h ]; then
    headers=$build$headers
    if ! [ -e "$headers/postgres.h" ]; then
        (cd "$build" && apt-get download -qq -o APT::Sandbox::User=root postgresql-server-dev-15 && dpkg -x postgresql-server-dev-15_*.deb .)
    fi
fi
cargo build --quiet --release --locked
cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -fPIC -shared -isystem "$headers" -o "$build/upcall_host.so" shim.c \
    "$CARGO_TARGET_DIR/release/libpostgres_host.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl

# The server refuses to run as root.
folder=$(mktemp -d) as=()
if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
    chown postgres "$folder"
fi
stop() {
    (cd / && "${as[@]}" $bin/pg_ctl stop -s -m immediate -D "$folder/data") || true
    rm -rf "$folder"
}
trap stop EXIT
chmod 755 "$folder"
cp "$build/upcall_host.so" "$folder"
(
    cd /
    "${as[@]}" $bin/initdb --no-sync --no-locale -E UTF8 -U postgres -A trust -D "$folder/data" >"$folder/initdb.log"
    cat >>"$folder/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$folder'
dynamic_library_path = '$folder'
shared_preload_libraries = 'upcall_host'
fsync = off
END
    "${as[@]}" $bin/pg_ctl start -s -w -D "$folder/data" -l "$folder/log" >/dev/null
)
export PGHOST=$folder PGUSER=postgres
session=(timeout 30 psql -X -q -A -t -v ON_ERROR_STOP=1)
"${session[@]}" -f setup.sql >/dev/null

# Prints `ok CASE`, or the server's messages about it.
passed() {
    if [ "$2" != 0 ]; then
        cat "$folder/case" >&2
        tail -20 "$folder/log" >&2
        echo "$1 ended with $2" >&2
        exit 1
    fi
    echo "ok $1"
}

for file in cases/*.sql; do
    code=0
    "${session[@]}" -f "$file" >"$folder/case" 2>&1 || code=$?
    passed "$(basename "$file" .sql)" $code
done

# ends CASE FUNCTION MESSAGE: ends a waiting session from another session.
ends() {
    local code=0
    PGAPPNAME=$1 "${session[@]}" -c 'SELECT rust_wait_interruptibly(100000)' >"$folder/case" 2>&1 &
    "${session[@]}" >/dev/null <<END
DO \$\$
DECLARE
    waiting integer;
BEGIN
    WHILE waiting IS NULL LOOP
        PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
        SELECT pid INTO waiting FROM pg_stat_activity WHERE application_name = '$1' AND wait_event = 'Extension';
    END LOOP;
    ASSERT $2(waiting);
END \$\$;
END
    wait $! || true # with an error, as it should
    grep -q "$3" "$folder/case" || code=$?
    passed "$1" $code
}
ends cancelled pg_cancel_backend 'ERROR:  canceling statement due to user request'
ends terminated pg_terminate_backend 'FATAL:  terminating connection due to administrator command'

# Many sessions at once. Each transaction has a new backend.
cat >"$folder/sessions.sql" <<'END'
SELECT 1 / (rust_worker() = pg_backend_pid() AND rust_query('SELECT rust_wait_interruptibly(2)') = 2)::integer;
SELECT 1 / (rust_try('SELECT 1 / 0') = 'division by zero' AND rust_nest(10) = 10 AND rust_state(0) = 0)::integer;
END
code=0
timeout 60 $bin/pgbench -n -C -c 16 -j 2 -t 20 -f "$folder/sessions.sql" >"$folder/case" 2>&1 || code=$?
passed sessions $code

# No process of the server has crashed.
code=0
! grep -E 'was terminated by signal|panicked at .*(crates/upcall|shim)' "$folder/log" >"$folder/case" || code=1
passed nothing_crashed $code

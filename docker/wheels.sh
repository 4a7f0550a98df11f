#!/bin/sh
# docker/wheels.sh TARGET DIR: brings the packages that an image holds, by hash, into DIR.
#
# They are the base's (CPython 3.11 on x86-64 Linux), whatever Python runs this. Two of the pipeline's
# exist as source alone; the build makes wheels of them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 dir=$2
mkdir -p "$dir"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sh "$here/locked.sh" "$target" >"$scratch/packages.lock"
platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' $(seq 36 -1 5)
    printf -- '--platform manylinux%s_x86_64 ' 2014 2010 1)
python=${PYTHON:-python3}
# pip looks into a source package before it keeps it, and needs setuptools for that
"$python" -m pip install --quiet --root-user-action ignore --require-hashes --no-deps --only-binary :all: \
    --target "$scratch/tools" --requirement "$here/installer.lock"
for lock in "$scratch/packages.lock" "$here/installer.lock"; do
    # shellcheck disable=SC2086
    PYTHONPATH=$scratch/tools "$python" -m pip download --quiet --require-hashes --no-deps \
        --no-build-isolation --only-binary :all: --no-binary nanotime,antlr4-python3-runtime \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $platforms \
        --dest "$dir" --requirement "$lock"
done

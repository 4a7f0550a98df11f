#!/bin/sh
# docker/locked.sh TARGET: prints the hash-locked packages of an image, and those that install them.
#
# The pipeline's are requirements.lock, less what a processor never loads (docker/rebuild.without).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "$1" = rebuild ]; then
    awk 'NR == FNR { left_out[$1]; next }
        /^[a-zA-Z0-9]/ { split($0, name, "=="); skip = name[1] in left_out }
        !skip' "$here/rebuild.without" "$here/../requirements.lock"
else
    cat "$here/$1.lock"
fi

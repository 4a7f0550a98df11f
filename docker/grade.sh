#!/bin/sh
# docker/grade.sh IMAGE MODEL TEST OUT [TRUTH]: grades in a container that can do nothing else.
set -eu
image=$1 model=$2 test=$3 out=$4 truth=${5:-}
for path in "$model" "$test" ${truth:+"$truth"}; do
    [ -e "$path" ] || { echo "error: $path does not exist" >&2; exit 5; }
done
mkdir -p "$out" # the engine would make it as root
absolute() { (cd "$(dirname "$1")" && printf '%s/%s' "$(pwd)" "$(basename "$1")"); }
set -- ${truth:+-v "$(absolute "$truth"):/truth.csv:ro"}
exec docker run --rm --network none --read-only \
    --tmpfs /tmp:rw,noexec,nosuid,nodev,size=64m --cap-drop ALL \
    --security-opt no-new-privileges --pids-limit 256 --memory 4g --memory-swap 4g \
    --user "$(id -u):$(id -g)" -v "$(absolute "$model"):/model.onnx:ro" \
    -v "$(absolute "$test"):/input:ro" -v "$(absolute "$out"):/output" "$@" \
    "$image" ${truth:+--truth /truth.csv}

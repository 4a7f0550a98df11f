#!/bin/sh
# docker/grade.sh IMAGE MODEL TEST OUT [TRUTH]: grades in a container that can do nothing else.
#
# MEMORY (default 4g) is what the container may use, CONTRACT a contract.json beside the model,
# CONTAINER a name for the container, OPTIONS more options of the grader, such as "--seconds 600
# --memory 8192". Exit codes are the grader's (python -m weighin.grading); its words are not kept.
set -eu
image=$1 model=$2 test=$3 out=$4 truth=${5:-} memory=${MEMORY:-4g}
contract=${CONTRACT:-}
fail() { printf 'error: %s\n  to fix: %s\n' "$2" "$3" >&2; exit "$1"; }
[ -f "$model" ] || fail 8 "$model is not a file" "name an ONNX file that exists"
[ -d "$test" ] || fail 5 "$test is not a folder" "name the folder of test images"
[ -z "$truth" ] || [ -f "$truth" ] || fail 5 "$truth is not a file" "name a CSV of labels"
[ -z "$contract" ] || [ -f "$contract" ] || fail 8 "$contract is not a file" "name a JSON file"
# the engine would make the folder as root
mkdir -p "$out" 2>/dev/null || fail 9 "cannot make $out" "name a folder that you may write to"
absolute() { (cd "$(dirname "$1")" && printf '%s/%s' "$(pwd)" "$(basename "$1")"); }
set -- ${CONTAINER:+--name "$CONTAINER"} ${truth:+-v "$(absolute "$truth"):/truth.csv:ro"} \
    ${contract:+-v "$(absolute "$contract"):/contract.json:ro"}
exec docker run --rm --network none --log-driver none --read-only \
    --tmpfs /tmp:rw,noexec,nosuid,nodev,size=64m --cap-drop ALL \
    --security-opt no-new-privileges --pids-limit 256 --memory "$memory" --memory-swap "$memory" \
    --ulimit fsize=200000000 --ulimit core=0 \
    --user "$(id -u):$(id -g)" -v "$(absolute "$model"):/model.onnx:ro" \
    -v "$(absolute "$test"):/input:ro" -v "$(absolute "$out"):/output" "$@" \
    "$image" ${truth:+--truth /truth.csv} ${contract:+--contract /contract.json} ${OPTIONS:-}

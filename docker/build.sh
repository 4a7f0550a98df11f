#!/bin/sh
# docker/build.sh TARGET WHEELS TAG: builds an image of the last commit, the same on every machine.
#
# Only what is committed goes in. Its time is the commit's; another SOURCE_DATE_EPOCH makes another
# image. BASE_IMAGE replaces the pinned base where no registry is reachable.
set -eu
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
target=$1 wheels=$2 tag=$3
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git -C "$root" archive HEAD docker src | tar -x -C "$context"
docker buildx build --quiet --no-cache --network none --provenance=false \
    --build-arg SOURCE_DATE_EPOCH ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} \
    --build-context "wheels=$wheels" --target "$target" --tag "$tag" --load \
    --file "$context/docker/Dockerfile" "$context"

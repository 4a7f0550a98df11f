#!/bin/sh
# docker/build.sh TARGET WHEELS TAG: builds an image of the last commit, the same on every machine,
# and prints what identifies it (docker/fingerprint.py).
#
# Only what is committed goes in. Its time is the commit's; another SOURCE_DATE_EPOCH makes another
# image. BASE_IMAGE replaces the pinned base where no registry is reachable.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(git -C "$here" rev-parse --show-toplevel)
target=$1 wheels=$2 tag=$3
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/context"
git -C "$root" archive HEAD docker src requirements.lock | tar -x -C "$scratch/context"
sh "$scratch/context/docker/locked.sh" "$target" >"$scratch/context/packages.lock"
docker buildx build --no-cache --network none --provenance=false --progress plain \
    --build-arg SOURCE_DATE_EPOCH ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} \
    --build-context "wheels=$wheels" --target "$target" --tag "$tag" --load \
    --file "$scratch/context/docker/Dockerfile" "$scratch/context" >"$scratch/log" 2>&1 ||
    { tail -n 40 "$scratch/log" >&2; exit 1; }
image=$(docker image inspect --format '{{.Id}}' "$tag") # a name alone may save several
facts=$(docker save "$image" | "${PYTHON:-python3}" "$here/fingerprint.py")
printf '%s %s\n' "$tag" "$facts"

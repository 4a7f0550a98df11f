#!/bin/sh
# docker/assemble.sh TARGET: assembles an image's /rootfs inside the build.
#
# The locked packages, then what TARGET.sh makes of them, the bill of what is there, and one owner,
# one time and one set of modes for all of it.
set -eu
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
: "${SOURCE_DATE_EPOCH:?build with docker/build.sh}"
to=/rootfs/opt/weighin
mkdir -p "$to" /rootfs/tmp

# pip runs from its own wheel, and setuptools makes wheels of the packages that come as source;
# neither gets into the image unless the lock names it
pip=$(echo /wheels/pip-*.whl)/pip
install() {
    python3 "$pip" install --isolated --no-index --find-links /wheels --require-hashes \
        --no-compile --no-deps --no-build-isolation --no-cache-dir --quiet \
        --root-user-action ignore "$@"
}
install --target /build/tools --requirement /build/installer.lock
PYTHONPATH=/build/tools install --target "$to" --requirement /build/packages.lock

# scripts that name the interpreter's path, and what tells one installation from another
rm -rf "$to/bin"
find "$to" -type f \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \
    -o -name '*.pyi' -o -name '*.h' -o -name '*.cc' -o -name '*.a' \) -delete

. "/build/$1.sh" # says also where the `system` of the image is, and its `stdlib` if that is ours
python3 /build/sbom.py "$to" "$system" >/rootfs/opt/sbom.cdx.json

# unchecked: a .pyc is valid whatever time its source carries; one process a package, for what a
# process compiled before shows in a .pyc
find /rootfs -name __pycache__ -prune -exec rm -rf {} +
compile="python3 -m compileall -q --invalidation-mode unchecked-hash -s /rootfs"
$compile -l "$to"
${stdlib:+$compile "$stdlib"}
find "$to" -mindepth 1 -maxdepth 1 -type d -not -name '*.dist-info' -print0 |
    xargs -0 -n 1 -P "$(nproc)" $compile
chmod -R u=rwX,go=rX /rootfs
chmod 1777 /rootfs/tmp
find /rootfs -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

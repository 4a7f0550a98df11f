#!/bin/sh
# Assembles /rootfs inside the build: the locked wheels, the grading part of the package, the SBOM,
# and of the base what these need.
set -eu
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
: "${SOURCE_DATE_EPOCH:?build with docker/build.sh}"
to=/rootfs/opt/weighin
mkdir -p "$to" /rootfs/tmp

# pip runs from its own wheel and is not part of the image
set -- /wheels/pip-*.whl
python3 "$1/pip" install --isolated --no-index --find-links /wheels --require-hashes \
    --no-compile --no-deps --no-cache-dir --quiet --root-user-action ignore \
    --target "$to" --requirement /build/packages.lock

# what only developers of these packages use, and scripts that name the interpreter's path
rm -rf "$to/bin" "$to/onnx/bin" "$to/onnx/backend" "$to/onnx/reference" \
    "$to/onnxruntime/transformers" "$to/onnxruntime/quantization" "$to/onnxruntime/tools" \
    "$to"/onnxruntime/capi/libonnxruntime.so* # Python has its own copy in the extension module
find "$to" -depth -type d -name tests -not -path '*/onnx/*' -exec rm -rf {} +
find "$to" -type f \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \
    -o -name '*.pyi' -o -name '*.h' -o -name '*.cc' -o -name '*.a' \) -delete

mkdir "$to/weighin"
for part in __init__ errors files images determinism progress schema params; do
    cp "/build/weighin/$part.py" "$to/weighin/"
done
mkdir "$to/weighin/grading"
cp /build/weighin/grading/*.py "$to/weighin/grading/"

python3 /build/slim.py /rootfs
python3 /build/sbom.py /rootfs >/rootfs/opt/sbom.cdx.json

# unchecked: a .pyc is valid whatever time its source carries
find /rootfs -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash -s /rootfs /rootfs
env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin PYTHONPATH=/opt/weighin PYTHONDONTWRITEBYTECODE=1 \
    chroot /rootfs python3 -c 'import weighin.grading.__main__, weighin.grading.grade, onnxruntime'
chmod -R u=rwX,go=rX /rootfs
chmod 1777 /rootfs/tmp
find /rootfs -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

#!/bin/sh
# Assembles /rootfs inside the build: the locked wheels, the grading part of the package, the SBOM.
set -eu
umask 022
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
: "${SOURCE_DATE_EPOCH:?build with docker/build.sh}"
to=/rootfs/opt/weighin
mkdir -p "$to"

# pip runs from its own wheel and is not part of the image
python3 /wheels/pip-*.whl/pip install --isolated --no-index --find-links /wheels --require-hashes \
    --no-compile --no-deps --no-cache-dir --quiet --root-user-action ignore \
    --target "$to" --requirement /build/packages.lock

python3 /build/sbom.py "$to" >/rootfs/opt/sbom.cdx.json

# what only developers of these packages use, and scripts that name the interpreter's path
rm -rf "$to/bin" "$to/onnx/backend/test" "$to/onnxruntime/transformers" \
    "$to/onnxruntime/quantization" "$to/onnxruntime/tools"
find "$to" -depth -type d -name tests -not -path '*/onnx/*' -exec rm -rf {} +
find "$to" -type f \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \
    -o -name '*.pyi' -o -name '*.h' -o -name '*.cc' \) -delete

mkdir "$to/weighin"
for part in __init__ errors files images determinism progress schema params; do
    cp "/build/weighin/$part.py" "$to/weighin/"
done
mkdir "$to/weighin/grading"
cp /build/weighin/grading/*.py "$to/weighin/grading/"

# unchecked: a .pyc is valid whatever time its source carries
find "$to" -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash -s /rootfs "$to"
chmod -R u=rwX,go=rX /rootfs
find /rootfs -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

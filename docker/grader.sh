# Run by assemble.sh: the grading part of the package, and of the base what Python loads.

# what only developers of these packages use; Python has its own ONNX Runtime in an extension module
rm -rf "$to/onnx/bin" "$to/onnx/backend" "$to/onnx/reference" \
    "$to/onnxruntime/transformers" "$to/onnxruntime/quantization" "$to/onnxruntime/tools" \
    "$to"/onnxruntime/capi/libonnxruntime.so*
find "$to" -depth -type d -name tests -exec rm -rf {} +

mkdir "$to/weighin"
for part in __init__ errors files file_names label_csv text_table image_formats images determinism \
    params validation parallel; do
    cp "/build/weighin/$part.py" "$to/weighin/"
done
mkdir "$to/weighin/grading"
cp /build/weighin/grading/*.py "$to/weighin/grading/"

python3 /build/slim.py /rootfs
system=/rootfs
stdlib=/rootfs$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin PYTHONPATH=/opt/weighin PYTHONDONTWRITEBYTECODE=1 \
    chroot /rootfs python3 -c 'import weighin.grading.__main__, weighin.grading.grade, onnxruntime'

# Run by assemble.sh: of the graphics libraries that the registry's torch wants, those that it loads
# on a processor too, when it is imported.
rm -rf "$to"/nvidia/*/include
find "$to/nvidia" -type f \( -name 'libcudnn_*' -o -name 'libnvperf*' -o -name '*.alt.so*' \
    -o -name 'libcufftw*' -o -name 'libnvblas*' -o -name 'libcheckpoint*' -o -name '*.bc' \
    -o -name 'libpcsampling*' -o -name 'nvshmem_*' \) -delete
rm "$to/torch/testing/_internal/py312_intrinsics.py" # written for a later Python; does not compile
system=/
stdlib=

# settings of DVC in a container, where there is no git; the names by which stages call programs
mkdir -p /rootfs/etc/dvc /rootfs/usr/local/bin /rootfs/project
printf '[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n' \
    >/rootfs/etc/dvc/config
command -v python >/dev/null || ln -s "$(command -v python3)" /rootfs/usr/local/bin/python
printf '#!/bin/sh\nexec python3 -m dvc "$@"\n' >/rootfs/usr/local/bin/dvc
printf '#!/bin/sh\nexec python3 -c "from weighin.cli import main; main()" "$@"\n' \
    >/rootfs/usr/local/bin/weighin
chmod +x /rootfs/usr/local/bin/dvc /rootfs/usr/local/bin/weighin
PYTHONPATH=$to python3 -c 'import torch, torchvision, dvc.cli'

#!/bin/sh
# Takes out of a virtual environment what an image never runs: tests, headers, byte code, compilers'
# tools, pip, and OpenVINO's plugins for devices other than the processor.
#     scripts/slim_venv.sh /opt/venv
set -eu
for packages in "$1"/lib/python3*/site-packages; do
    find "$packages" -depth -type d \
        \( -name tests -o -name test -o -name include -o -name __pycache__ \) -exec rm -rf {} +
    find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete
    rm -rf "$packages"/openvino/libs/libopenvino_intel_[gn]pu_plugin.so \
        "$packages/openvino/libs/cache.json" "$packages"/pip "$packages"/pip-*.dist-info
done
rm -f "$1"/bin/pip*

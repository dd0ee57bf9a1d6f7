#!/bin/sh
# In an image's build: makes a virtual environment with exactly the locked versions.
#     install_packages.sh /opt/venv
# Beside it lie the lock files and, for a build without network, wheels with their SHA256SUMS.
# TORCH_INDEX_URL is a further index for torch alone.
set -eu
cd "$(dirname "$0")"
python3 -m venv "$1"
install="$1/bin/pip install --no-cache-dir --no-compile"
locks=$(ls requirements*.lock | grep -v torch)
if ls ./*.whl > /dev/null 2>&1; then
    sha256sum --quiet --check SHA256SUMS
    # shellcheck disable=SC2086 # one word per file
    cat $locks | sed -n 's/^\([A-Za-z0-9_.-]\{1,\}==[^ ;\\]*\).*/\1/p' > pins.txt
    $install --no-index --find-links . --no-deps -r pins.txt
    $install --no-index --find-links . -r requirements-torch.lock
    exit
fi
for lock in $locks; do
    $install --no-deps --require-hashes -r "$lock"
done
# What torch needs depends on its build, so pip resolves what the locks have not brought.
$install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -r requirements-torch.lock

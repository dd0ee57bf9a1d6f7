#!/bin/sh
# In an image's build: makes a virtual environment with exactly the locked versions.
#     install_packages.sh /opt/venv
# In the same folder are the lock files, one of them torch's, and, for a build without network, wheels with
# their SHA256SUMS. TORCH_INDEX_URL is a further index for torch alone.
set -eu
cd "$(dirname "$0")"
python3 -m venv "$1"
install="$1/bin/pip install --no-cache-dir --no-compile"
locks=$(ls requirements*.lock | grep -v requirements-torch)
torch=$(ls requirements-torch*.lock)
# Built for CUDA, torch and all that it brings are locked. For a CPU pip resolves what the locks have
# not brought.
[ "$torch" = requirements-torch.lock ] || locks="$locks $torch" torch=
if ls ./*.whl > /dev/null 2>&1; then
    sha256sum --quiet --check SHA256SUMS
    # shellcheck disable=SC2086 # one word per file
    cat $locks | sed -n 's/^\([A-Za-z0-9_.-]\{1,\}==[^ ;\\]*\).*/\1/p' > pins.txt
    $install --no-index --find-links . --no-deps -r pins.txt
    [ -z "$torch" ] || $install --no-index --find-links . -r "$torch"
    exit
fi
for lock in $locks; do
    $install --no-deps --require-hashes -r "$lock"
done
[ -z "$torch" ] || $install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -r "$torch"

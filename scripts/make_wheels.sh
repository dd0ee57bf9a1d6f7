#!/usr/bin/env bash
# Fills wheels/ with everything a task's image installs, so that it can be built without network:
#     scripts/make_wheels.sh task2
source "$(dirname "$0")/common.sh"
require_task "${1:-}"
cd "$ROOT"
say "Collecting the wheels of $1 for $(python3 --version); BASE_IMAGE needs the same minor version"
mkdir -p wheels
install_locked "$1" python3 -m pip wheel --quiet --wheel-dir wheels
# What the image's build checks: wheels made here from sources have no hash in the locks.
(cd wheels && sha256sum -- *.whl > SHA256SUMS)
say "$(find wheels -name '*.whl' | wc -l) wheels in wheels/"

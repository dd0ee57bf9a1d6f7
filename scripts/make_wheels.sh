#!/usr/bin/env bash
# Fills wheels/cpu (or wheels/gpu) with everything a task's image installs, so that it can be built
# without network:
#     scripts/make_wheels.sh task2 [cpu|gpu]
source "$(dirname "$0")/common.sh"
require_task "${1:-}"
task=$1
device=${2:-cpu}
case $device in
    cpu | gpu) ;;
    *) fail "'$device' is not understood: scripts/make_wheels.sh $task [cpu|gpu]" 2 ;;
esac
cd "$ROOT"
folder=wheels/$device
say "Collecting the wheels of $task for $(python3 --version); BASE_IMAGE needs the same minor version"
mkdir -p "$folder"
collect=(python3 -m pip wheel --quiet --wheel-dir "$folder")
if [ "$device" = gpu ]; then
    for lock in $(locks_of "$task") "$(torch_lock_of gpu)"; do
        say "$lock"
        "${collect[@]}" --no-deps --require-hashes -r "$lock"
    done
else
    install_locked "$task" "${collect[@]}"
fi
# What the image's build checks: wheels made here from sources have no hash in the locks.
(cd "$folder" && sha256sum -- *.whl > SHA256SUMS)
say "$(find "$folder" -name '*.whl' | wc -l) wheels in $folder/"

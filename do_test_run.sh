#!/usr/bin/env bash
# Segments the bundled case of a task and compares the mask with the reference:
#     ./do_test_run.sh task2
# In a container as the platform starts it where a Docker engine answers, in .venv otherwise.
# The mask is the same. GC_PANTHER_NO_DOCKER=1 chooses .venv.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-task2}"
task=${1:-task2}
case_folder=$ROOT/test/cases/$task
out=$ROOT/out/$task
report=$out/run_report.json

set_up_environment run
rm -rf "$out"
mkdir -p "$out/output"

in_container() {
    local limits=(--network none --read-only --tmpfs /tmp --cap-drop ALL
        --security-opt no-new-privileges --pids-limit 256)
    # The container's user is not the one who owns this folder.
    chmod 777 "$out/output"
    docker run --rm --platform linux/amd64 "${limits[@]}" ${GC_PANTHER_GPUS:+--gpus "$GC_PANTHER_GPUS"} \
        -v "$case_folder/input:/input:ro" -v "$out/output:/output" "$(image_of "$task")"
}

in_environment() {
    "$VENV/bin/gc-panther" run --task "$task" --input "$case_folder/input" \
        --output "$out/output" --report "$report"
}

if [ -z "${GC_PANTHER_NO_DOCKER:-}" ] && engine_answers; then
    if "$ROOT/do_build.sh" "$task"; then
        say "Running $(image_of "$task") on the bundled case: no network, read-only root"
        in_container
    else
        say "The image could not be built (see above); running in .venv instead"
        in_environment
    fi
else
    say "No Docker engine is used; running the same entry point in .venv"
    in_environment
fi

"$PY" "$ROOT/scripts/show_result.py" "$task" "$out"

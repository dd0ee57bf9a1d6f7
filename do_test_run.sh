#!/usr/bin/env bash
# Segments the bundled case of a task and compares the mask with the reference:
#     ./do_test_run.sh [TASK] [--device cpu|gpu]      task2 and cpu where nothing is said
#     ./do_test_run.sh [TASK] --as-platform [--instance g4dn.xlarge] [--model model.tar.gz]
# The second form drives the image with the platform's own shim and judges what it gives.
# In a container as the platform starts it where a Docker engine answers, in .venv otherwise; the
# mask is the same. GC_PANTHER_NO_DOCKER=1 chooses .venv.
source "$(dirname "$0")/scripts/common.sh"
task=task2
device=cpu
as_platform=
platform=()
while [ $# -gt 0 ]; do
    case $1 in
        --device)
            case ${2:-} in
                cpu | gpu) device=$2 ;;
                *) fail "--device takes cpu or gpu" 2 ;;
            esac
            shift 2
            ;;
        --as-platform)
            as_platform=1
            shift
            ;;
        --instance)
            [ -n "${2:-}" ] || fail "--instance takes the name of one, such as g4dn.xlarge" 2
            platform+=(--instance "$2")
            shift 2
            ;;
        --model)
            [ -f "${2:-}" ] || fail "--model takes a model.tar.gz that is there; '${2:-}' is not" 2
            platform+=(--model "$(realpath "$2")")
            shift 2
            ;;
        *)
            require_task "$1"
            task=$1
            shift
            ;;
    esac
done
if [ -n "$as_platform" ]; then
    engine_answers || fail "no Docker engine answers, and the platform's shim runs in the image"
    docker image inspect "$(image_of "$task")" > /dev/null 2>&1 || "$ROOT/do_build.sh" "$task"
    set_up_environment run
    exec "$PY" "$ROOT/scripts/emulation/emulate.py" "$task" "${platform[@]}"
fi
[ ${#platform[@]} = 0 ] || fail "--instance and --model go with --as-platform" 2
case_folder=$ROOT/test/cases/$task
out=$ROOT/out/$task
image=$(image_of "$task")
gpus=() torch_device=cpu
[ "$device" = gpu ] && gpus=(--gpus all) torch_device=cuda

rm -rf "$out"
mkdir -p "$out/output"

in_container() {
    local container
    # /output is a volume of the container, copied out afterwards: the image's user owns the files
    # there, and could neither write to this folder nor leave files that its owner can delete.
    container=$(docker create --platform linux/amd64 --network none --read-only --tmpfs /tmp \
        --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 "${gpus[@]}" \
        -e GC_PANTHER_DEVICE="$torch_device" -v "$case_folder/input:/input:ro" -v /output "$image")
    # shellcheck disable=SC2064 # this container, whatever the variable holds later
    trap "docker rm --force --volumes $container > /dev/null" EXIT
    if [ "$(api_of "$image")" = invoke ]; then
        docker start "$container" > /dev/null
        local status=0
        docker exec -i "$container" python3 - < "$ROOT/scripts/invoke.py" || status=$?
        docker stop --time 5 "$container" > /dev/null
        docker logs "$container"
        [ "$status" = 0 ] || return "$status"
    else
        docker start --attach "$container"
    fi
    docker cp --quiet "$container:/output/." "$out/output"
}

in_environment() {
    set_up_environment run
    "$VENV/bin/gc-panther" run --task "$task" --device "$torch_device" \
        --input "$case_folder/input" --output "$out/output"
}

if [ -n "${GC_PANTHER_NO_DOCKER:-}" ] || ! engine_answers; then
    say "No Docker engine is used; running the same entry point in .venv"
    in_environment
elif "$ROOT/do_build.sh" "$task"; then
    say "Running $image on the bundled case: no network, read-only root, not as root"
    in_container
else
    say "The image could not be built (see above); running the same entry point in .venv"
    in_environment
fi

set_up_environment run
"$PY" "$ROOT/scripts/show_result.py" "$task" "$out"

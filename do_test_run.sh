#!/usr/bin/env bash
# Segments a case and shows the mask; by default the bundled one, which has a reference:
#     ./do_test_run.sh [TASK] [--input FOLDER] [--model FOLDER] [--device cpu|gpu] [--tag NAME]
#     ./do_test_run.sh [TASK] --as-platform [--instance NAME] [--input FOLDER] [--model FOLDER] [--tag NAME]
# The second form lets the platform's own shim run the image, and checks what it writes.
#
# TASK                task2 by default
# --input FOLDER      laid out as the platform's /input
# --model FOLDER      with the task's model folders, or model.tar.gz: the model that is uploaded
# --device cpu|gpu    cpu by default; gpu needs an image for it (./do_build.sh)
# --tag NAME          of the image, gc-panther-TASK by default; it is built first, as it was before
# --instance NAME     of the platform: g4dn.xlarge for images with CUDA, r7i.large for others
# --job-limit SECONDS        for start-up, self-test and case together (1200)
# --health-timeout SECONDS   for start-up and self-test (300)
#
# In a container as the platform starts it where an engine answers (CONTAINER_ENGINE, docker by
# default), in .venv otherwise; the mask is the same. GC_PANTHER_NO_DOCKER=1 chooses .venv.
source "$(dirname "$0")/scripts/common.sh"
task=task2
device=cpu
as_platform=
instance=
given=
model=
image=
job_limit=1200
health_timeout=300
# What only a container can do.
container_for=
while [ $# -gt 0 ]; do
    option=$1 value=${2:-}
    shift
    case $option in
        --as-platform)
            as_platform=1 container_for=$option
            continue
            ;;
        --device | --instance | --tag | --input | --model | --job-limit | --health-timeout)
            [ -n "$value" ] || fail "$option needs a value" 2
            shift
            ;;
        --*) fail "'$option' is not understood; the first lines of do_test_run.sh list the options" 2 ;;
    esac
    case $option in
        --device)
            case $value in
                cpu) device=$value ;;
                gpu) device=$value container_for="$option $value" ;;
                *) fail "--device takes cpu or gpu" 2 ;;
            esac
            ;;
        --instance) instance=$value ;;
        --tag) image=$value container_for=$option ;;
        --input)
            [ -d "$value" ] || fail "--input takes an existing folder; '$value' is not one" 2
            given=$(realpath "$value")
            ;;
        --model)
            [ -e "$value" ] || fail "--model takes an existing folder or model.tar.gz; there is no '$value'" 2
            model=$(realpath "$value")
            ;;
        --job-limit | --health-timeout)
            [[ $value =~ ^[1-9][0-9]{0,5}$ ]] || fail "$option takes whole seconds; '$value' is not valid" 2
            case $option in
                --job-limit) job_limit=$value ;;
                *) health_timeout=$value ;;
            esac
            ;;
        *)
            require_task "$option"
            task=$option
            ;;
    esac
done
[ -z "$instance" ] || [ -n "$as_platform" ] || fail "--instance goes with --as-platform" 2
[ -n "$image" ] || image=$(image_of "$task")
bundled=$ROOT/test/cases/$task
[ -n "$given" ] || given=$bundled/input
use_engine=1
[ -z "${GC_PANTHER_NO_DOCKER:-}" ] && engine_answers || use_engine=
if [ -n "$container_for" ] && [ -z "$use_engine" ]; then
    [ -z "${GC_PANTHER_NO_DOCKER:-}" ] ||
        [ "$container_for" = "--device gpu" ] ||
        fail "$container_for needs a container, and GC_PANTHER_NO_DOCKER forbids one" 2
    [ -n "${GC_PANTHER_NO_DOCKER:-}" ] ||
        fail "$container_for needs a container, and no engine ($CONTAINER_ENGINE) answers. Without one: GC_PANTHER_NO_DOCKER=1 ./do_test_run.sh $task"
fi
say_tried() {
    [ "$device" = gpu ] || say "This run was on the CPU: not tried on a GPU"
}

if [ -n "$as_platform" ]; then
    build_for=gpu
    case $instance in m7i* | r7i*) build_for=cpu ;; esac
    build_as_before "$task" "$image" "$build_for" || fail "the image $image could not be built (see above)"
    set_up_environment run
    platform=(--image "$image" --input "$given" --job-limit "$job_limit" --health-timeout "$health_timeout")
    [ -z "$instance" ] || platform+=(--instance "$instance")
    if [ -d "$model" ]; then
        packed=$(mktemp -d)
        trap 'rm -rf "$packed"' EXIT
        pack_models "$task" "$model" "$packed/model.tar.gz"
        model=$packed/model.tar.gz
    fi
    [ -z "$model" ] || platform+=(--model "$model")
    "$PY" "$ROOT/scripts/emulation/emulate.py" "$task" "${platform[@]}"
    exit
fi

out=$ROOT/out/$task
rm -rf "$out"
mkdir -p "$out/output"

too_long() {
    fail "not done within $job_limit s, the limit for start-up, self-test and case together (--job-limit)"
}

in_container() {
    local container options=() status=0
    case $device in
        gpu)
            options+=(-e GC_PANTHER_DEVICE=cuda)
            if is_podman; then options+=(--device nvidia.com/gpu=all); else options+=(--gpus all); fi
            ;;
        cpu) options+=(-e GC_PANTHER_DEVICE=cpu -e GC_PANTHER_REQUIRE_GPU=0) ;;
    esac
    if [ -d "$model" ]; then
        options+=(-v "$model:/opt/ml/model:ro")
    elif [ -n "$model" ]; then
        options+=(-v "$model:/opt/model.tar.gz:ro" -e GC_PANTHER_MODEL_DIR=/opt/model.tar.gz)
    fi
    # /output is a volume of the container, copied out afterwards: the image's user owns the files
    # there, and could neither write to this folder nor leave files that its owner can delete.
    container=$("$CONTAINER_ENGINE" create --platform linux/amd64 --network none --read-only --tmpfs /tmp \
        --shm-size 64m --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 \
        "${options[@]}" -v "$given:/input:ro" -v /output "$image")
    # shellcheck disable=SC2064 # this container, whatever the variable holds later
    trap "\"$CONTAINER_ENGINE\" rm --force --volumes $container > /dev/null" EXIT
    if [ "$(api_of "$image")" = invoke ]; then
        "$CONTAINER_ENGINE" start "$container" > /dev/null
        "$CONTAINER_ENGINE" exec -i "$container" python3 - --job-limit "$job_limit" \
            --health-timeout "$health_timeout" < "$ROOT/scripts/invoke.py" || status=$?
        "$CONTAINER_ENGINE" stop --time 5 "$container" > /dev/null
        "$CONTAINER_ENGINE" logs "$container"
    else
        timeout --foreground "$job_limit" "$CONTAINER_ENGINE" start --attach "$container" || status=$?
        [ "$status" != 124 ] || too_long
    fi
    [ "$status" = 0 ] || exit "$status"
    local quiet=--quiet
    ! is_podman || quiet=
    "$CONTAINER_ENGINE" cp $quiet "$container:/output/." "$out/output"
}

in_environment() {
    local torch_device=cpu status=0
    [ "$device" = cpu ] || torch_device=cuda
    set_up_environment run
    timeout --foreground --kill-after=10 "$job_limit" "$VENV/bin/gc-panther" run --task "$task" \
        --device "$torch_device" ${model:+--model-dir "$model"} \
        --input "$given" --output "$out/output" || status=$?
    [ "$status" != 124 ] || too_long
    [ "$status" = 0 ] || exit "$status"
}

if [ -z "$use_engine" ]; then
    say "No container engine is used; running the same entry point in .venv"
    in_environment
else
    build_as_before "$task" "$image" "$device" ||
        fail "the image $image could not be built (see above). Without it: GC_PANTHER_NO_DOCKER=1 ./do_test_run.sh $task"
    [ "$device$(label_of "$image" "$DEVICE_LABEL")" != gpucpu ] ||
        fail "the image $image is built for CPUs. Build it with ./do_build.sh $task --device gpu --tag $image"
    say "Running $image: no network, read-only root, not as root"
    in_container
fi

set_up_environment run
[ "$given" != "$bundled/input" ] || reference=$bundled/expected/reference.mha
"$PY" "$ROOT/scripts/show_result.py" "$task" "$out" "$given" ${reference:+"$reference"}
say_tried

#!/usr/bin/env bash
# Builds a task's image:
#     ./do_build.sh task2 [--api invoke|exec] [--device gpu|cpu] [--tag NAME] [--no-cache]
#
# --api invoke   the platform's current interface (default): a server, the networks loaded once
# --api exec     its first interface: one start per case
# --device gpu   for the platform's GPUs (default): torch 2.7.1 with CUDA 12.6, which their drivers
#                run. The image does not start without a usable GPU (GC_PANTHER_REQUIRE_GPU=1).
# --device cpu   a newer torch without CUDA, which is gigabytes smaller
# --tag NAME     of the image, gc-panther-TASK if not given
# --no-cache     every step again; scripts/audit/compare.py checks whether two builds are the same
# An image that was made from the same files with the same arguments is left unchanged.
# BASE_IMAGE=python:3.11-slim-bookworm  another base with Python 3.11 or newer
# TORCH_INDEX_URL=…        a further index for the torch of --device cpu; PyTorch's of CPU builds
# CONTAINER_ENGINE=podman  another engine than docker
# If wheels/gpu or wheels/cpu holds wheels (scripts/make_wheels.sh), nothing is fetched from a registry.
# An SBOM and an audit of what the image holds are written to out/sbom/.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
task=$1
shift
usage="./do_build.sh $task [--api invoke|exec] [--device gpu|cpu] [--tag NAME] [--no-cache]"
api=invoke
device=gpu
image=$(image_of "$task")
arguments=()
no_cache=
while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
        "--api invoke" | "--api exec") api=$2 ;;
        "--device gpu" | "--device cpu") device=$2 ;;
        "--api "*) fail "--api takes invoke or exec" 2 ;;
        "--device "*) fail "--device takes gpu or cpu" 2 ;;
        "--tag "?*) image=$2 ;;
        "--no-cache "*)
            no_cache=1
            shift
            continue
            ;;
        *) fail "'$1' is not understood: $usage" 2 ;;
    esac
    shift 2
done
engine_answers ||
    fail "no container engine ($CONTAINER_ENGINE) answers. Start one, or try the task without: ./do_test_run.sh $task"
cd "$ROOT"
mkdir -p "wheels/$device"
arguments+=(--build-arg "API=$api")
base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' "Dockerfile.$task")}
arguments+=(--build-arg "BASE_IMAGE=$base" --build-arg "DEVICE=$device")
arguments+=(--build-arg "TORCH_LOCK=$(torch_lock_of "$device")")
case $device in
    gpu) arguments+=(--build-arg REQUIRE_GPU=1) ;;
    cpu) arguments+=(--build-arg REQUIRE_GPU=0) ;;
esac
base_id=$("$CONTAINER_ENGINE" image inspect -f '{{.Id}}' "$base" 2> /dev/null) ||
    base_id=$("$CONTAINER_ENGINE" pull --quiet "$base" > /dev/null &&
        "$CONTAINER_ENGINE" image inspect -f '{{.Id}}' "$base") ||
    fail "the base image $base is unavailable; name another one as BASE_IMAGE"
sources=$(sources_of "$task" "$device" "$base_id" "${arguments[@]}")
if [ -z "$no_cache" ] && [ "$(label_of "$image" "$SOURCES_LABEL")" = "$sources" ]; then
    say "$image ($api, $device) is up to date: nothing that it is made from has changed"
    exit
fi
# Where torch comes from changes nothing in the image: its version and its build are checked.
if [ "$device" = cpu ]; then
    arguments+=(--build-arg "TORCH_INDEX_URL=${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}")
fi
say "Building $image ($api, $device) from Dockerfile.$task"
# The name is given last: nothing may take an image that fails the check for the one asked for.
candidate=gc-panther-candidate:$$
trap '"$CONTAINER_ENGINE" image rm "$candidate" > /dev/null 2>&1 || true' EXIT
"$CONTAINER_ENGINE" build --platform linux/amd64 ${no_cache:+--no-cache} "${arguments[@]}" \
    --label "$SOURCES_LABEL=$sources" --label "$DEVICE_LABEL=$device" --label "$BASE_LABEL=$base" \
    -f "Dockerfile.$task" -t "$candidate" .
cuda=$("$CONTAINER_ENGINE" run --rm --network none --entrypoint python3 "$candidate" -c \
    "import torch; print(torch.version.cuda or 'none')")
case $device$cuda in
    gpunone) fail "the image's torch has no CUDA; the index that pip used gave another build than $(torch_lock_of gpu) names" ;;
    cpu*[0-9]) fail "the image's torch brings CUDA $cuda, which a CPU does not need; name PyTorch's index of CPU builds as TORCH_INDEX_URL" ;;
esac
"$CONTAINER_ENGINE" tag "$candidate" "$image"
python3 "$ROOT/scripts/audit/sbom.py" "$image" "$ROOT/out/sbom/$task" ||
    say "No SBOM was written (see above); the image itself is built"
say "Built $image: $("$CONTAINER_ENGINE" image inspect -f '{{.Size}}' "$image" | numfmt --to=iec) bytes"

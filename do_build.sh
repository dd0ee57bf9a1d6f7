#!/usr/bin/env bash
# Builds a task's image:
#     ./do_build.sh task2 [--api invoke|exec] [--device gpu|cpu] [--tag NAME] [--no-cache]
#
# --api invoke   the platform's current interface (default): a server, the networks loaded once
# --api exec     its first interface: one start per case
# --device gpu   refuse a torch without CUDA; cpu: refuse one with it, which is gigabytes larger.
#                Without it, the image has the torch that the registry gives.
# --tag NAME     of the image, gc-panther-TASK if not given
# --no-cache     every step anew: scripts/audit/compare.py tells whether two builds are the same
# An image that was made from the same files with the same arguments is left as it is.
# BASE_IMAGE=python:3.11-slim-bookworm  another base with Python 3.11 or newer
# TORCH_INDEX_URL=…                     a further index for torch, such as PyTorch's of CPU builds
# If wheels/ holds wheels (scripts/make_wheels.sh fills it), nothing is fetched from a registry.
# A bill of materials and an audit of what the image holds are written to out/bill/.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
task=$1
shift
api=invoke
device=
image=$(image_of "$task")
arguments=()
while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
        "--api invoke" | "--api exec") api=$2 ;;
        "--device gpu" | "--device cpu") device=$2 ;;
        "--api "*) fail "--api takes invoke or exec" 2 ;;
        "--device "*) fail "--device takes gpu or cpu" 2 ;;
        "--tag "?*) image=$2 ;;
        "--no-cache "*)
            arguments+=(--no-cache)
            shift
            continue
            ;;
        *) fail "'$1' is not understood: ./do_build.sh $task [--api invoke|exec] [--device gpu|cpu] [--tag NAME] [--no-cache]" 2 ;;
    esac
    shift 2
done
engine_answers || fail "no Docker engine answers. Start one, or try the task without: ./do_test_run.sh $task"
cd "$ROOT"
mkdir -p wheels
arguments+=(--build-arg "API=$api")
[ -n "${BASE_IMAGE:-}" ] && arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
[ -n "${TORCH_INDEX_URL:-}" ] && arguments+=(--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL")
base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' "Dockerfile.$task")}
base_id=$(docker image inspect -f '{{.Id}}' "$base" 2> /dev/null) ||
    base_id=$(docker pull --quiet "$base" > /dev/null && docker image inspect -f '{{.Id}}' "$base") ||
    fail "the base image $base is unavailable; name another one as BASE_IMAGE"
sources=$(sources_of "$task" "$base_id" "$device" "${arguments[@]}")
built=$(docker image inspect -f "{{index .Config.Labels \"$SOURCES_LABEL\"}}" "$image" 2> /dev/null) || built=
if [ "$built" = "$sources" ] && [[ " ${arguments[*]} " != *" --no-cache "* ]]; then
    say "$image ($api) is up to date: nothing that it is made from has changed"
    exit
fi
say "Building $image ($api) from Dockerfile.$task"
docker build --platform linux/amd64 "${arguments[@]}" --label "$SOURCES_LABEL=$sources" \
    -f "Dockerfile.$task" -t "$image" .
if [ -n "$device" ]; then
    cuda=$(docker run --rm --network none --entrypoint python3 "$image" -c \
        "import torch; print(torch.version.cuda or 'none')")
    wrong=
    case $device$cuda in
        gpunone) wrong="the image's torch has no CUDA; name an index that has it as TORCH_INDEX_URL" ;;
        cpu*[0-9]) wrong="the image's torch brings CUDA $cuda, which a CPU does not need; name PyTorch's index of CPU builds as TORCH_INDEX_URL" ;;
    esac
    if [ -n "$wrong" ]; then
        # Nothing may take it for the image that was asked for.
        docker image rm "$image" > /dev/null
        fail "$wrong"
    fi
fi
python3 "$ROOT/scripts/audit/bill.py" "$image" "$ROOT/out/bill/$task" ||
    say "No bill of materials was written (see above); the image itself is built"
say "Built $image: $(docker image inspect -f '{{.Size}}' "$image" | numfmt --to=iec) bytes"

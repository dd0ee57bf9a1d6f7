# Shared by the scripts; sourced, not run.
#
# After sourcing: ROOT is the checkout, PY the virtual environment's Python once
# `set_up_environment` has returned.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
PY=$VENV/bin/python
TASKS="task1 task2"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# As gc-panther sets it: threads that wait must not spin on cores that others need.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

say() { printf '==> %s\n' "$*"; }

warn() { printf 'warning: %s\n' "$*" >&2; }

# A number of bytes for people.
si() { printf '%sB' "$(numfmt --to=si "$1")"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

# The task named by the first argument; anything else is refused.
require_task() {
    local known
    for known in $TASKS; do
        [ "${1:-}" = "$known" ] && return 0
    done
    fail "'${1:-}' is not a valid task. Choose one of: $TASKS" 2
}

# docker, or podman, which takes the same commands.
export CONTAINER_ENGINE=${CONTAINER_ENGINE:-docker}

# Whether the container engine answers soon.
engine_answers() {
    command -v "$CONTAINER_ENGINE" > /dev/null && timeout 10 "$CONTAINER_ENGINE" info > /dev/null 2>&1
}

is_podman() { [ "${CONTAINER_ENGINE##*/}" = podman ]; }

# A label of an image; empty where the image or the label is missing.
label_of() { "$CONTAINER_ENGINE" image inspect -f "{{index .Config.Labels \"$2\"}}" "$1" 2> /dev/null || true; }

# The platform's interface that an image serves: invoke, exec, or nothing for other images.
api_of() { label_of "$1" org.grand-challenge.api-method; }

image_of() { printf 'gc-panther-%s' "$1"; }

# The labels in which an image carries the digest of what it was made from, and two arguments of its
# build: gpu or cpu, and the base image.
SOURCES_LABEL=org.gc-panther.sources
DEVICE_LABEL=org.gc-panther.device
BASE_LABEL=org.gc-panther.base

# build_as_before TASK IMAGE DEVICE: builds an image again, unless it is up to date, for the
# interface, the device and from the base image that it has; for DEVICE where there is no image yet.
build_as_before() {
    local task=$1 image=$2 device=$3 api=invoke base=
    if "$CONTAINER_ENGINE" image inspect "$image" > /dev/null 2>&1; then
        [ -n "$(label_of "$image" "$SOURCES_LABEL")" ] ||
            fail "the image $image does not say what it was built from. Build it with ./do_build.sh $task --tag $image"
        api=$(api_of "$image")
        device=$(label_of "$image" "$DEVICE_LABEL")
        base=$(label_of "$image" "$BASE_LABEL")
    fi
    BASE_IMAGE=${BASE_IMAGE:-$base} \
        "$ROOT/do_build.sh" "$task" --tag "$image" --api "${api:-invoke}" --device "${device:-gpu}"
}

# The model folders of a task.
models_of() {
    echo "$1"
    [ "$1" != task2 ] || echo mrsegmentator
}

# pack_models TASK FOLDER FILE: the task's model folders below FOLDER as the model.tar.gz that is
# uploaded, each at the top level.
pack_models() {
    local folder
    for folder in $(models_of "$1"); do
        [ -d "$2/$folder" ] || fail "there is no model folder $2/$folder" 2
    done
    # shellcheck disable=SC2046 # one word per folder
    tar -czf "$3" --owner=0 --group=0 --numeric-owner -C "$2" $(models_of "$1")
}

# The lock of the torch that an image for gpu or cpu gets.
torch_lock_of() {
    case $1 in
        gpu) echo requirements-torch-gpu.lock ;;
        *) echo requirements-torch.lock ;;
    esac
}

# sources_of TASK DEVICE ARGUMENTS...: the digest of all that goes into a task's image: the files that
# its Dockerfile copies, the wheels, and the arguments of the build.
sources_of() {
    local task=$1 device=$2 files
    shift
    (
        cd "$ROOT"
        printf '%s\n' "$@"
        files=(.dockerignore "Dockerfile.$task" LICENSE README.md pyproject.toml requirements.lock
            "$(torch_lock_of "$device")" scripts/install_packages.sh scripts/slim_venv.sh)
        [ "$task" = task1 ] || files+=(requirements-task2.lock)
        [ ! -f "wheels/$device/SHA256SUMS" ] || files+=("wheels/$device/SHA256SUMS")
        # shellcheck disable=SC2046 # one word per folder
        find "${files[@]}" gc_panther "tasks/$task" $(models_of "$task" | sed 's:^:resources/:') \
            \( -name __pycache__ -o -name '*.egg-info' \) -prune \
            -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -d ' ' -f 1
}

# The lock files of task1, task2, run (both tasks) or dev (and the checks).
locks_of() {
    echo requirements.lock
    [ "$1" = task1 ] || echo requirements-task2.lock
    [ "$1" != dev ] || echo requirements-dev.lock
}

# NAME==VERSION of each package of a lock file, without the hashes.
pins_of() { sed -n 's/^\([A-Za-z0-9_.-]\{1,\}==[^ ;\\]*\).*/\1/p' "$1"; }

# install_locked SET COMMAND...: SET as for locks_of, COMMAND is `install` of pip or uv, or `wheel` of
# pip. Every file has to have one of its lock's hashes. What torch needs depends on its build (CPU or
# CUDA), so that is resolved, within the versions of the locks. TORCH_INDEX_URL is a further index for
# torch alone.
install_locked() {
    local lock locks pins
    locks=$(locks_of "$1")
    shift
    for lock in $locks; do
        say "$lock"
        "$@" --no-deps --require-hashes -r "$lock"
    done
    say "torch and what its build needs (the largest part)"
    pins=$(mktemp)
    pins_of requirements.lock > "$pins"
    "$@" -c "$pins" ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} -r requirements-torch.lock
    rm "$pins"
}

has_uv() { command -v uv > /dev/null; }

# A Python that the locked versions support, and a way to make a virtual environment with it.
require_python() {
    command -v python3 > /dev/null ||
        fail "python3 is missing. On Debian and Ubuntu: sudo apt-get install python3 python3-venv" 2
    python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        fail "Python 3.11, 3.12 or 3.13 is needed; python3 is $(python3 --version 2>&1)" 2
    has_uv || python3 -c 'import ensurepip, venv' 2> /dev/null ||
        fail "python3 cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv (or install uv)" 2
}

# What the set-up downloads: measured sums of the wheels' sizes for Linux on x86-64.
announce_download() {
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        say "About 0.4 GB will be downloaded, and torch from the index that TORCH_INDEX_URL names (0.2 GB for CPUs)"
    elif command -v nvidia-smi > /dev/null; then
        say "About 3.1 GB will be downloaded, 2.7 GB of it torch with CUDA"
    else
        say "Up to 3.1 GB will be downloaded, 2.7 GB of it torch with CUDA, which this machine cannot use: it has no NVIDIA driver"
        say "0.2 GB in place of the 2.7 GB: stop with Ctrl-C, and set TORCH_INDEX_URL to an index of builds for CPUs (README.md)"
    fi
}

# make_environment run|dev OWN...: makes $VENV, or brings it to the locked versions, with uv where it
# is on the PATH, and installs our distributions, which OWN names as arguments of `install`. On a
# terminal, both show their progress.
make_environment() {
    local locks=$1 quiet=--quiet install
    shift
    [ ! -t 1 ] || quiet=
    if has_uv; then
        # With pip, by which other scripts install their tools.
        "$PY" -m pip --version > /dev/null 2>&1 ||
            uv venv $quiet --seed --allow-existing --python "$(command -v python3)" "$VENV"
        install=(uv pip install $quiet --python "$PY")
        install_locked "$locks" "${install[@]}"
    else
        "$PY" -m pip --version > /dev/null 2>&1 || python3 -m venv "$VENV"
        install=("$PY" -m pip install $quiet)
        # mrsegmentator declares bounds below the locked versions (CONTRIBUTING.md): no error, though
        # pip calls it one.
        install_locked "$locks" "${install[@]}" --no-warn-conflicts
    fi
    "${install[@]}" --no-deps --no-build-isolation "$@"
}

# set_up_environment run|dev: makes .venv with exactly the locked versions, or finds it made. The
# stamp is written last, so an interrupted installation is done again.
set_up_environment() {
    local stamp=$VENV/.gc_panther-$1 wanted
    cd "$ROOT"
    # The folder counts too: what is installed editable points to it.
    wanted=$({ pwd; cat requirements-torch.lock $(locks_of "$1") pyproject.toml tasks/*/pyproject.toml; } | sha256sum)
    if [ -x "$PY" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
        return 0
    fi
    require_python
    (
        flock 9
        # Another process may have finished the work while this one waited.
        [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && exit 0
        say "Setting up the virtual environment .venv, once (some minutes)"
        [ -x "$PY" ] || announce_download
        make_environment "$1" -e . -e tasks/task1 -e tasks/task2
        printf '%s\n' "$wanted" > "$stamp"
        say "The virtual environment is ready"
    ) 9> "$ROOT/.venv.lock"
}

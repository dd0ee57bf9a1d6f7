# Shared by the scripts beside it; sourced, not run.
#
# After sourcing: ROOT is the checkout, PY the virtual environment's Python once
# `set_up_environment` has returned.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PY=$VENV/bin/python
TASKS="task1 task2"

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

# The task named by the first argument; anything else is refused.
require_task() {
    for known in $TASKS; do
        [ "${1:-}" = "$known" ] && return 0
    done
    fail "'${1:-}' is no task. Choose one of: $TASKS" 2
}

# Whether a Docker engine answers soon.
engine_answers() {
    command -v docker > /dev/null && timeout 10 docker info > /dev/null 2>&1
}

image_of() { printf 'gc-panther-%s' "$1"; }

# set_up_environment [dev]: makes .venv with exactly the locked versions, or finds it made. The
# stamp is written last, so an interrupted installation is done again.
set_up_environment() {
    local stamp=$VENV/.gc_panther-$1 locks wanted
    locks=(requirements.lock requirements-task2.lock)
    [ "$1" = dev ] && locks+=(requirements-dev.lock)
    cd "$ROOT"
    wanted=$(cat "${locks[@]}" pyproject.toml tasks/*/pyproject.toml | sha256sum | cut -d' ' -f1)
    if [ -x "$PY" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
        return 0
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null ||
        fail "Python 3.11 or newer is needed, found $(python3 --version 2>&1)" 2
    (
        flock 9
        # Another process may have finished the work while this one waited.
        [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && exit 0
        say "Setting up the virtual environment .venv (once; torch is large)"
        [ -x "$PY" ] || python3 -m venv "$VENV"
        install="$PY -m pip install --quiet --disable-pip-version-check"
        # torch with what it requires, which depends on its build; all else as locked.
        $install "$(grep '^torch==' requirements.lock)"
        for lock in "${locks[@]}"; do
            $install --no-deps -r "$lock"
        done
        $install --no-deps --no-build-isolation -e . -e tasks/task1 -e tasks/task2
        printf '%s\n' "$wanted" > "$stamp"
        say "The virtual environment is ready"
    ) 9> "$ROOT/.venv.lock"
}

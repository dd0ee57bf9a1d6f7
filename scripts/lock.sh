#!/usr/bin/env bash
# Writes the hashes of every file of each pinned release into the lock files, with uv:
#     scripts/lock.sh [LOCK FILE...]
# To add or update a package, write NAME==VERSION on a line of its own and run this.
source "$(dirname "$0")/common.sh"
cd "$ROOT"
locks=("$@")
[ $# -gt 0 ] ||
    locks=(requirements.lock requirements-task2.lock requirements-dev.lock requirements-torch-gpu.lock
        scripts/*/requirements.lock)
# The development environment has it.
PATH=$PATH:$VENV/bin
has_uv || fail "uv is not installed. Run pip install uv, or ./run_tests.sh, which installs it in .venv" 2
compile() {
    uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version "$@"
}
new=$(mktemp)
trap 'rm -f "$new"' EXIT
for lock in "${locks[@]}"; do
    say "$lock"
    grep '^#' "$lock" > "$new"
    case $lock in
        requirements-torch-gpu.lock)
            # One build, so it is known what it brings.
            mapfile -t core < <(pins_of requirements.lock | sed 's/==.*//; s/^/--no-emit-package=/')
            pins_of "$lock" | grep '^torch==' | compile 3.11 --python-platform x86_64-manylinux_2_28 \
                -c <(pins_of requirements.lock) "${core[@]}" - >> "$new"
            ;;
        # The shim declares a newer Python than it needs, and is installed without that check.
        scripts/emulation/requirements.lock)
            pins_of "$lock" | compile 3.12 --no-deps --universal - >> "$new"
            ;;
        *) pins_of "$lock" | compile 3.11 --no-deps --universal - >> "$new" ;;
    esac
    cat "$new" > "$lock"
done

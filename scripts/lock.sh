#!/usr/bin/env bash
# Writes the hashes of every file of each pinned release into the lock files, with uv:
#     scripts/lock.sh [LOCK FILE...]
# To add or update a package, write NAME==VERSION on a line of its own and run this.
source "$(dirname "$0")/common.sh"
cd "$ROOT"
locks=("$@")
[ $# -gt 0 ] ||
    locks=(requirements.lock requirements-task2.lock requirements-dev.lock scripts/*/requirements.lock)
command -v uv > /dev/null || fail "uv is not installed. Run pip install uv" 2
trap 'rm -f "$lock.new"' EXIT
for lock in "${locks[@]}"; do
    say "$lock"
    # The shim declares a newer Python than it needs, and is installed without that check.
    python=3.11
    [ "$lock" = scripts/emulation/requirements.lock ] && python=3.12
    grep '^#' "$lock" > "$lock.new"
    pins_of "$lock" | uv pip compile --quiet --no-deps --generate-hashes --universal \
        --python-version $python --no-annotate --no-header - >> "$lock.new"
    mv "$lock.new" "$lock"
done

#!/usr/bin/env bash
# Fills wheels/ with everything a task's image installs, so that it can be built without network:
#     scripts/make_wheels.sh task2
source "$(dirname "$0")/common.sh"
require_task "${1:-}"
set_up_environment run
cd "$ROOT"
locks=(-r requirements.lock)
[ "$1" = task2 ] && locks+=(-r requirements-task2.lock)
mkdir -p wheels
say "Collecting wheels"
"$PY" -m pip wheel --quiet --disable-pip-version-check --wheel-dir wheels \
    "$(grep '^torch==' requirements.lock)"
"$PY" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir wheels "${locks[@]}"
say "$(find wheels -name '*.whl' | wc -l) wheels in wheels/"

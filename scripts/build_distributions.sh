#!/usr/bin/env bash
# Builds the wheels and source archives of the three distributions in dist/, and tries the wheels in
# an empty environment outside the checkout:
#     scripts/build_distributions.sh
source "$(dirname "$0")/common.sh"
set_up_environment dev
cd "$ROOT"
rm -rf dist
for folder in . tasks/task1 tasks/task2; do
    say "Building $folder"
    # Each wheel is made of the source archive, so that is complete.
    "$VENV/bin/uv" build --quiet --python "$PY" --out-dir dist "$folder"
done
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
VENV=$empty/venv
PY=$VENV/bin/python
say "Installing the wheels in an empty environment"
make_environment run dist/*.whl
unset PYTHONPATH
cd "$empty"
"$VENV/bin/gc-panther" --help
"$VENV/bin/gc-panther" tasks | tee tasks
for task in $TASKS; do
    grep -q "$task.*abdominal" tasks || fail "the installed wheels have no task $task"
done
say "Built and tried: $(cd "$ROOT" && echo dist/*)"

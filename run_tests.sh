#!/usr/bin/env bash
# Sets up and passes the tests. Arguments go to pytest: ./run_tests.sh -k phantom
source "$(dirname "$0")/scripts/common.sh"
set_up_environment dev
cd "$ROOT"
say "Running the tests (skipped ones say why at the end)"
exec "$PY" -m pytest "$@"

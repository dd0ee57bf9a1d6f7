#!/usr/bin/env bash
# Which small faults in a package its unit tests would notice:
#     scripts/mutate.sh PACKAGE [--sample N] [--seed S] [--skip MODULE]...
# PACKAGE is below gc_panther: imaging, imaging/formats or nnunet/inference/windows.py. See docs/testing.md.
source "$(dirname "$0")/common.sh"
cd "$ROOT"
[ -x "$PY" ] || fail "there is no environment yet. ./run_tests.sh makes one" 2
exec nice -n 10 "$PY" scripts/mutation/mutate.py "$@"

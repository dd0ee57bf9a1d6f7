#!/usr/bin/env bash
# Measures which lines and branches the tests reach, and prints a table by package:
#     scripts/coverage.sh [ARGUMENTS of run_tests.sh, such as --all]
# out/coverage/index.html shows them line by line. The processes that tests start are not counted.
source "$(dirname "$0")/common.sh"
out=$ROOT/out/coverage
"$ROOT/run_tests.sh" "$@" --cov --cov-report="html:$out" --cov-report="json:$out/coverage.json"
"$PY" "$ROOT/scripts/coverage_table.py" "$out/coverage.json"
say "Line by line: $out/index.html"

#!/usr/bin/env bash
# Checks the source without running it: every hook of .pre-commit-config.yaml, on all files that git
# knows:
#     scripts/lint.sh [HOOK]     one hook by its id, or all of them
source "$(dirname "$0")/common.sh"
set_up_environment dev
cd "$ROOT"
exec "$VENV/bin/pre-commit" run --all-files --show-diff-on-failure "$@"

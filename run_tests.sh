#!/usr/bin/env bash
# Sets up and passes the tests (docs/testing.md):
#     ./run_tests.sh          the first tier: what a change can break on any machine, in minutes
#     ./run_tests.sh --all    also the second: real weights, trainings, faults, fuzzers
# Other arguments go to pytest: ./run_tests.sh -k phantom, ./run_tests.sh test/unit/imaging -n 0.
# Tests that are asked for by their path run whichever tier they are in.
source "$(dirname "$0")/scripts/common.sh"
tier="not slow and not container and not gpu"
parallel=
[ "$(nproc)" -lt 2 ] || parallel="-n auto --maxprocesses 8 --dist worksteal"
arguments=()
for word in "$@"; do
    case $word in
        --all) tier="not container" ;;
        -m*) tier= ;;
        -n* | --numprocesses*) parallel= ;;
        test/* | ./test/*) tier= ;;
    esac
    [ "$word" = --all ] || arguments+=("$word")
done
set_up_environment dev
cd "$ROOT"
# Each worker has one core; more threads would only wait for each other.
[ -z "$parallel" ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
say "Running the tests (skipped ones say why at the end)"
# shellcheck disable=SC2086 # one word per option
exec "$PY" -m pytest $parallel ${tier:+-m "$tier"} "${arguments[@]}"

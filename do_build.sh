#!/usr/bin/env bash
# Builds a task's image: ./do_build.sh task2 [--api invoke|exec]
#
# --api invoke   the platform's current interface (default): a server, the networks loaded once
# --api exec     its first interface: one start per case
# BASE_IMAGE=python:3.11-slim-bookworm  another base with Python 3.11 or newer
# If wheels/ holds wheels (scripts/make_wheels.sh fills it), nothing is fetched from a registry.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
api=invoke
if [ "${2:-}" = --api ]; then
    api=${3:-}
elif [ $# -gt 1 ]; then
    fail "'$2' is not understood: ./do_build.sh $1 [--api invoke|exec]" 2
fi
case $api in
    invoke | exec) ;;
    *) fail "--api takes invoke or exec" 2 ;;
esac
engine_answers || fail "no Docker engine answers. Start one, or try the task without: ./do_test_run.sh $1"
cd "$ROOT"
mkdir -p wheels
arguments=(--build-arg "API=$api")
[ -n "${BASE_IMAGE:-}" ] && arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
say "Building $(image_of "$1") ($api) from Dockerfile.$1"
docker build --platform linux/amd64 "${arguments[@]}" -f "Dockerfile.$1" -t "$(image_of "$1")" .
say "Built $(image_of "$1"): $(docker image inspect -f '{{.Size}}' "$(image_of "$1")" | numfmt --to=iec) bytes"

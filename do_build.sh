#!/usr/bin/env bash
# Builds a task's image: ./do_build.sh task2
#
# BASE_IMAGE=python:3.11-slim-bookworm  another base with Python 3.11 or newer
# If wheels/ holds wheels (scripts/make_wheels.sh fills it), nothing is fetched from a registry.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
engine_answers || fail "no Docker engine answers. Start one, or try the task without: ./do_test_run.sh $1"
cd "$ROOT"
mkdir -p wheels
arguments=()
[ -n "${BASE_IMAGE:-}" ] && arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
say "Building $(image_of "$1") from Dockerfile.$1"
docker build --platform linux/amd64 "${arguments[@]}" -f "Dockerfile.$1" -t "$(image_of "$1")" .
say "Built $(image_of "$1"): $(docker image inspect -f '{{.Size}}' "$(image_of "$1")" | numfmt --to=iec) bytes"

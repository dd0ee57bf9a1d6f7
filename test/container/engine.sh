#!/usr/bin/env bash
# Makes sure that a container engine answers and that images can be built, or says why not:
#     test/container/engine.sh
# As root on Debian it installs and starts an engine where none answers. Where no registry gives the
# base image, a Debian base is made with debootstrap and imported. Prints the base's name; exit 1
# where either is impossible, with the reason as the last line on stderr.
source "$(dirname "$0")/../../scripts/common.sh"
BASE=python:3.11-slim-bookworm
STAND_IN=gc-panther-base:bookworm
WORK=${TMPDIR:-/tmp}/gc_panther-engine

missing_packages() {
    [ "$(id -u)" = 0 ] || fail "an engine can only be started as root"
    command -v apt-get > /dev/null || fail "an engine can only be installed on Debian"
    { apt-get update -qq && apt-get install -y -qq "$@"; } > "$WORK/apt.log" 2>&1 ||
        fail "$* cannot be installed ($(tail -n 1 "$WORK/apt.log"))"
}

start_engine() {
    engine_answers && return 0
    [ "$CONTAINER_ENGINE" = docker ] || fail "$CONTAINER_ENGINE does not answer"
    command -v dockerd > /dev/null || missing_packages docker.io
    setsid dockerd --storage-driver=overlay2 > "$WORK/dockerd.log" 2>&1 < /dev/null &
    local seconds
    for seconds in $(seq 60); do
        engine_answers && return 0
        kill -0 $! 2> /dev/null || break
        sleep 1
    done
    fail "dockerd does not start within $seconds s ($(tail -n 1 "$WORK/dockerd.log"))"
}

# The machine's own Debian mirror, from its package sources in either format.
mirror() {
    { grep -rhoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d || true; } \
        2> /dev/null | head -n 1 | tr -d ' '
}

make_base() {
    "$CONTAINER_ENGINE" image inspect "$BASE" > /dev/null 2>&1 && echo "$BASE" && return 0
    "$CONTAINER_ENGINE" image inspect "$STAND_IN" > /dev/null 2>&1 && echo "$STAND_IN" && return 0
    timeout 120 "$CONTAINER_ENGINE" pull --quiet "$BASE" > /dev/null 2>&1 && echo "$BASE" && return 0
    command -v debootstrap > /dev/null || missing_packages debootstrap
    rm -rf "$WORK/base"
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
        bookworm "$WORK/base" "$(mirror)" > "$WORK/debootstrap.log" 2>&1 ||
        fail "no base image can be pulled, and debootstrap failed ($(tail -n 1 "$WORK/debootstrap.log"))"
    tar -C "$WORK/base" -c . | "$CONTAINER_ENGINE" import - "$STAND_IN" > /dev/null
    rm -rf "$WORK/base"
    echo "$STAND_IN"
}

mkdir -p "$WORK"
start_engine
make_base

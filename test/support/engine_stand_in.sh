#!/usr/bin/env bash
# A container engine that does nothing but note what it is asked, for tests of the scripts.
#
# STAND_IN is its folder: an image is a folder of files named as the fields and labels that
# `image inspect` shows; what a container prints is in the file stdout; a file fails-COMMAND makes a
# command fail; asked gets the words of each call. In shell, because Python would start too slowly.
set -eu
printf '%s\x1f' "$@" >> "$STAND_IN/asked"
printf '\x1e' >> "$STAND_IN/asked"
if [ -e "$STAND_IN/fails-$1" ]; then
    echo "Error response from daemon: $1" >&2
    exit 1
fi
folder_of() { printf '%s/images/%s' "$STAND_IN" "${1//[:\/]/__}"; }

# Prints what a template of `image inspect -f` gives.
show() {
    local field=${1//[\{\}\" ]/}
    field=${field#index.Config.Labels}
    [ ! -e "$2/${field#.}" ] || printf '%s\n' "$(< "$2/${field#.}")"
}

# Makes an image from the options of a build.
build() {
    local tag='' labels=() api=''
    while [ $# -gt 0 ]; do
        case $1 in
            -t) tag=$(folder_of "$2") ;;
            --label) labels+=("$2") ;;
            --build-arg) [ "${2%%=*}" != API ] || api=${2#*=} ;;
        esac
        shift
    done
    mkdir -p "$tag"
    printf 'sha256:%s' "$RANDOM$RANDOM" > "$tag/Id"
    printf 2000000000 > "$tag/Size"
    printf '2026-01-02T03:04:05.678Z' > "$tag/Created"
    printf '%s' "$api" > "$tag/org.grand-challenge.api-method"
    for label in "${labels[@]}"; do
        printf '%s' "${label#*=}" > "$tag/${label%%=*}"
    done
}

case "$1 ${2:-}" in
    "image inspect")
        folder=$(folder_of "${!#}")
        [ -d "$folder" ] || exit 1
        [ "$3" != -f ] || show "$4" "$folder"
        ;;
    "image rm") rm -rf "$(folder_of "$3")" ;;
    build*) build "$@" ;;
    tag*)
        rm -rf "$(folder_of "$3")"
        cp -r "$(folder_of "$2")" "$(folder_of "$3")"
        ;;
    run*) printf '%s\n' "$(< "$STAND_IN/stdout")" ;;
    create*) echo container ;;
    save*) echo layers ;;
    load*) while read -r _; do :; done ;;
esac

#!/usr/bin/env bash
# Packs what Grand Challenge takes: the image of a task, and its weights as model.tar.gz. Then loads
# both again, and lets the platform's own shim run them.
#     ./do_save.sh task2 [MODELS] [--no-check]
# MODELS is a folder with the task's model folders; the bundled ones by default.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
task=$1
shift
models=$ROOT/resources
check=1
for word in "$@"; do
    case $word in
        --no-check) check= ;;
        --*) fail "'$word' is not understood: ./do_save.sh $task [MODELS] [--no-check]" 2 ;;
        *) models=$word ;;
    esac
done
# The platform's nominal limit of an image, bytes.
most=10000000000
folders=$task
[ "$task" = task2 ] && folders="task2 mrsegmentator"
for folder in $folders; do
    [ -d "$models/$folder" ] || fail "there is no model folder $models/$folder" 2
done
engine_answers || fail "no Docker engine answers, so there is no image to save"
name=$(image_of "$task")
docker image inspect "$name" > /dev/null 2>&1 ||
    fail "the image $name is not built. Run ./do_build.sh $task first" 2

out=$ROOT/out/save
mkdir -p "$out"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/gc_panther/__init__.py")
created=$(docker image inspect -f '{{.Created}}' "$name" | tr -d ':-' | cut -c1-15)
image=$out/${task}_${version}_$created.tar.gz
model=$out/${task}_model.tar.gz
trap 'rm -f "$image.partial" "$model.partial"' EXIT

say "Saving the image $name"
docker save "$name" | gzip -1 > "$image.partial"
bytes=$(stat -c %s "$image.partial")
[ "$bytes" -le "$most" ] ||
    fail "the image has $(numfmt --to=si "$bytes")B, and the platform takes $(numfmt --to=si $most)B"
mv "$image.partial" "$image"
say "Packing the weights, each model folder at the top level"
# shellcheck disable=SC2086 # one word per folder
tar -czf "$model.partial" --owner=0 --group=0 --numeric-owner -C "$models" $folders
mv "$model.partial" "$model"
if [ -n "$check" ]; then
    say "Loading $(basename "$image") again"
    saved=$(docker image inspect -f '{{.Id}}' "$name")
    gzip -dc "$image" | docker load --quiet
    loaded=$(docker image inspect -f '{{.Id}}' "$name")
    [ "$saved" = "$loaded" ] || fail "what was loaded ($loaded) is not what was saved ($saved)"
    "$ROOT/do_test_run.sh" "$task" --as-platform --model "$model"
fi
(cd "$out" && sha256sum "$(basename "$image")" "$(basename "$model")" | tee "$task.sha256")
say "$(numfmt --to=si "$bytes")B of image, $(stat -c %s "$model" | numfmt --to=si)B of model"
say "Upload $image as the container and $model as the model"

#!/usr/bin/env bash
# Packs what Grand Challenge takes: the image of a task, and its weights as model.tar.gz.
#     ./do_save.sh task2 [MODELS]
# MODELS is a folder with the task's model folders; the bundled ones by default.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
task=$1
models=${2:-$ROOT/resources}
folders=$task
[ "$task" = task2 ] && folders="task2 mrsegmentator"
for folder in $folders; do
    [ -d "$models/$folder" ] || fail "there is no model folder $models/$folder" 2
done
engine_answers || fail "no Docker engine answers, so there is no image to save"
docker image inspect "$(image_of "$task")" > /dev/null 2>&1 ||
    fail "the image $(image_of "$task") is not built. Run ./do_build.sh $task first" 2

out=$ROOT/out/save
mkdir -p "$out"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/gc_panther/__init__.py")
created=$(docker image inspect -f '{{.Created}}' "$(image_of "$task")" | tr -d ':-' | cut -c1-15)
image=$out/${task}_${version}_$created.tar.gz
model=$out/${task}_model.tar.gz

say "Saving the image"
docker save "$(image_of "$task")" | gzip > "$image.partial"
mv "$image.partial" "$image"
say "Packing the weights, each model folder at the top level"
# shellcheck disable=SC2086 # one word per folder
tar -czf "$model.partial" -C "$models" $folders
mv "$model.partial" "$model"
(cd "$out" && sha256sum "$(basename "$image")" "$(basename "$model")" | tee "$task.sha256")
say "Upload $image as the container and $model as the model"

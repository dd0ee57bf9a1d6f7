#!/usr/bin/env bash
# Packs what Grand Challenge takes: the image of a task, and its weights as model.tar.gz. Then loads
# both again, and lets the platform's own shim run them.
#     ./do_save.sh task2 [MODELS] [--tag NAME] [--no-check]
# MODELS is a folder with the task's model folders; the bundled ones by default. The image is built
# first, as it was before (./do_build.sh says with which arguments), so that what is saved is what
# lies in this folder.
source "$(dirname "$0")/scripts/common.sh"
require_task "${1:-}"
task=$1
shift
models=$ROOT/resources
check=1
image=$(image_of "$task")
while [ $# -gt 0 ]; do
    case $1 in
        --no-check) check= ;;
        --tag)
            [ -n "${2:-}" ] || fail "--tag takes the name of an image" 2
            image=$2
            shift
            ;;
        --*) fail "'$1' is not understood: ./do_save.sh $task [MODELS] [--tag NAME] [--no-check]" 2 ;;
        *) models=$1 ;;
    esac
    shift
done
# The platform's nominal limit of an image, bytes.
most=10000000000
for folder in $(models_of "$task"); do
    [ -d "$models/$folder" ] || fail "there is no model folder $models/$folder" 2
done
models=$(realpath "$models")
engine_answers || fail "no container engine ($CONTAINER_ENGINE) answers, so there is no image to save"
build_as_before "$task" "$image" gpu || fail "the image $image could not be built (see above), and nothing is saved"

# Whether the platform's GPUs would be used.
cuda=$("$CONTAINER_ENGINE" run --rm --network none --entrypoint python3 "$image" -c \
    "import torch; print(torch.version.cuda or 'none')")
case $cuda in
    none) warn "the image's torch has no CUDA: on the platform it runs on a CPU. For its GPUs: ./do_build.sh $task --device gpu --tag $image" ;;
    1[3-9].*) warn "the image's torch brings CUDA $cuda, which the driver of the platform's T4 is not known to run. CUDA 12: ./do_build.sh $task --device gpu --tag $image" ;;
esac

out=$ROOT/out/save
mkdir -p "$out"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/gc_panther/__init__.py")
created=$("$CONTAINER_ENGINE" image inspect -f '{{.Created}}' "$image" | tr -d ':-' | tr ' ' T | cut -c1-15)
archive=$out/${task}_${version}_$created.tar.gz
model=$out/${task}_model.tar.gz
trap 'rm -f "$archive.partial" "$model.partial"' EXIT

say "Saving the image $image"
"$CONTAINER_ENGINE" save "$image" | gzip -1 > "$archive.partial"
bytes=$(stat -c %s "$archive.partial")
unpacked=$("$CONTAINER_ENGINE" image inspect -f '{{.Size}}' "$image")
sizes="$(si "$unpacked") unpacked, $(si "$bytes") to upload; the platform takes $(si $most)"
[ "$bytes" -le "$most" ] && [ "$unpacked" -le "$most" ] ||
    fail "the image is too large: $sizes. Leave weights to the model upload, and caches out of the image"
say "Size of the image: $sizes"
mv "$archive.partial" "$archive"
say "Packing the weights, each model folder at the top level"
pack_models "$task" "$models" "$model.partial"
mv "$model.partial" "$model"
say "GPU memory of the model, estimated from its plans"
folders=()
for folder in $(models_of "$task"); do
    folders+=("/models/$folder")
done
# As root, who can read the folders whatever their permissions are.
"$CONTAINER_ENGINE" run --rm --network none --user 0:0 -v "$models:/models:ro" --entrypoint python3 \
    "$image" -m gc_panther.nnunet.model.gpu_memory "${folders[@]}" || warn "it was not estimated (see above)"
if [ -n "$check" ]; then
    say "Loading $(basename "$archive") again"
    saved=$("$CONTAINER_ENGINE" image inspect -f '{{.Id}}' "$image")
    gzip -dc "$archive" | "$CONTAINER_ENGINE" load --quiet
    loaded=$("$CONTAINER_ENGINE" image inspect -f '{{.Id}}' "$image")
    [ "$saved" = "$loaded" ] || fail "what was loaded ($loaded) is not what was saved ($saved)"
    "$ROOT/do_test_run.sh" "$task" --as-platform --tag "$image" --model "$model"
    [ "$saved" = "$("$CONTAINER_ENGINE" image inspect -f '{{.Id}}' "$image")" ] ||
        fail "something that $image is made from was changed meanwhile, so another image was tried than saved. Run ./do_save.sh again"
fi
(cd "$out" && sha256sum "$(basename "$archive")" "$(basename "$model")" | tee "$task.sha256")
say "$(si "$bytes") of image, $(si "$(stat -c %s "$model")") of model"
say "Upload $archive as the container and $model as the model"

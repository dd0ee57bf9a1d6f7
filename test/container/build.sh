#!/usr/bin/env bash
# Builds every task's image for the tests in this folder:
#     test/container/build.sh
# Exit 3 where no engine is available, with the reason as the last line on stderr. Wheels and layers
# are kept for the next time.
source "$(dirname "$0")/../../scripts/common.sh"
cd "$ROOT"
base=$(test/container/engine.sh) || exit 3
# Layers of a base that has its Python from elsewhere cannot use this machine's wheels.
locked=$({ python3 --version; cat requirements-torch.lock $(locks_of run); } | sha256sum)
if [ "$(cat wheels/cpu/.locked 2> /dev/null)" != "$locked" ]; then
    rm -rf wheels/cpu
    # Task 2 installs all that Task 1 does.
    scripts/make_wheels.sh task2 cpu
    printf '%s\n' "$locked" > wheels/cpu/.locked
fi
for task in $TASKS; do
    BASE_IMAGE=$base ./do_build.sh "$task" --device cpu
    BASE_IMAGE=$base ./do_build.sh "$task" --device cpu --api exec --tag "$(image_of "$task")-exec"
done

"""`gc-panther train task1` with a recipe from a file instead of a preset; tests start and kill it.

python tiny_training.py RECIPE.json [--hold=WHERE] [--ray] ARGUMENTS OF GC-PANTHER

WHERE is one of HOLDS, or a text that a job logs. There the run waits for ever.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import quick_nnunet
from gc_panther_task1 import training

from gc_panther import cli
from gc_panther.nnunet.training.jobs import ray_engine
from gc_panther.nnunet.training.jobs.engine import LocalEngine
from gc_panther.nnunet.training.models import export
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.phantom import dataset

#: What waits in this process: module, function, and the call that does not return.
HOLDS = {"phantoms": (dataset, "make_case", 2), "export": (export, "_export_checkpoint", 2)}

#: Parts that a warm-up's phantoms are split into: as many phantoms are enough.
WARM_UP_FOLDS = 3


def hold(name: str) -> None:
    """Stop for ever within a stage."""
    if name not in HOLDS:
        os.environ[quick_nnunet.HOLD] = name
        return
    module, function, last = HOLDS[name]
    work = getattr(module, function)
    calls = []

    def work_or_wait(*arguments):
        calls.append(arguments)
        if len(calls) == last:
            print(f"{name}: waits for its end", flush=True)
            time.sleep(3600)
        return work(*arguments)

    setattr(module, function, work_or_wait)


def be_quick() -> None:
    """Jobs without what nnU-Net spends most of their time on, and with one thread each."""
    process_of = Workspace._process

    def quick_process(space, job):
        return replace(process_of(space, job), module=quick_nnunet.__name__)

    Workspace._process = quick_process
    LocalEngine.threads = lambda engine, processes: 1


def start_ray() -> None:
    """Two workers, whatever the machine has."""
    # As the engine does where it starts Ray itself; Ray reads them when it is imported.
    os.environ.update(dict.fromkeys(ray_engine._OFF, "0"))
    import ray

    ray.init(num_cpus=2, include_dashboard=False)


def main() -> None:
    """Run the command line."""
    recipe = training.Task1Recipe.model_validate_json(Path(sys.argv[1]).read_bytes())
    training.load_preset = lambda *_: recipe
    training.WARM_UP_FOLDS = WARM_UP_FOLDS
    be_quick()
    options = [word for word in sys.argv[2:] if word == "--ray" or word.startswith("--hold=")]
    # In this order: what Ray starts inherits the environment.
    for option in sorted(options):
        if option == "--ray":
            start_ray()
        else:
            hold(option.removeprefix("--hold="))
    arguments = [word for word in sys.argv[2:] if word not in options]
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    main()

"""Where the weights are: ``--model-dir``, then the platform's folder, then the bundled ones.

``--model-dir`` may name an archive, ``model.tar.gz``, instead: what is uploaded can be tried as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gc_panther.errors import WeightsError
from gc_panther.runtime.archives import is_archive, unpacked
from gc_panther.settings import Settings
from gc_panther.task import ModelRequirement, Task

#: Files by which a folder is known to be a model folder itself.
_MODEL_FILES = ("plans.json", "dataset.json")


def weight_roots(settings: Settings, model_dir: Path | None = None) -> tuple[Path, ...]:
    """The folders weights are looked for in, the first one first.

    Raises:
        WeightsError: the chosen one is an archive that is missing, damaged or hostile.
    """
    chosen = model_dir or settings.model_dir
    if chosen is not None and is_archive(chosen):
        chosen = unpacked(chosen, settings.scratch)
    roots = (chosen, settings.platform_model_dir, settings.resources)
    return tuple(root for root in roots if root is not None)


def find_models(task: Task, roots: tuple[Path, ...], *, explicit: bool) -> dict[str, Path]:
    """Find the folder of every model a task needs.

    Only the place is decided here; the task opens the folder and refuses an incomplete one, so
    that a broken folder is reported and not passed over for the next root.

    Args:
        task: whose models.
        roots: folders in the order of :func:`weight_roots`.
        explicit: the first root was named by the user and has to hold at least one of the models.

    Returns:
        The model folders by requirement name.

    Raises:
        WeightsError: a model is nowhere.
    """
    if explicit and not any(_candidates(roots[0], model, task) for model in task.models):
        raise WeightsError(
            f"the chosen folder holds none of the models of {task.name} "
            f"({', '.join(model.name for model in task.models)})",
            where=roots[0],
            fix=f"Expected {roots[0] / task.models[0].name / 'plans.json'}",
        )
    return {model.name: find_model(model, roots, task) for model in task.models}


def find_model(model: ModelRequirement, roots: tuple[Path, ...], task: Task) -> Path:
    """Find the folder of one model.

    Raises:
        WeightsError: it is nowhere; the message says where it was looked for.
    """
    for root in roots:
        for folder in _candidates(root, model, task):
            return folder
    raise WeightsError(
        f"there are no weights {model.name!r}",
        where=", ".join(str(root / model.name) for root in roots),
        fix=model.source,
    )


def _candidates(root: Path, model: ModelRequirement, task: Task) -> list[Path]:
    return list(_possible(root, model, task))


def _possible(root: Path, model: ModelRequirement, task: Task) -> Iterator[Path]:
    if (root / model.name).is_dir():
        yield root / model.name
    # A task with one model may be given that model's folder itself.
    elif len(task.models) == 1 and any((root / name).is_file() for name in _MODEL_FILES):
        yield root

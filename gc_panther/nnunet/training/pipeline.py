"""The interface of a training pipeline, as a plugin provides it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from gc_panther.errors import PluginError

if TYPE_CHECKING:
    import pluggy

#: nnU-Net's presets of residual encoder U-Nets, by the size of GPU they are planned for.
ResEnc = Literal["M", "L", "XL"]


@dataclass(frozen=True)
class TrainingRequest:
    """What the user asked ``gc-panther train`` for.

    Attributes:
        preset: name of a recipe the pipeline ships, such as ``demo`` or ``panther``.
        work: folder for data sets, preprocessed data and checkpoints; kept between runs, finished
            stages in it are not repeated.
        export: folder that receives the finished model folders, one per model requirement.
        data: folder of training data in the task's layout, or None for those that the preset
            makes.
        splits: the folds' cases in nnU-Net's ``splits_final.json`` format, or None to draw them.
        start_from: model folder of an earlier task to fine-tune from, or None for the default.
        device: torch's name of the device.
        jobs: how many folds may train at the same time on a machine.
        engine: ``local``, or ``ray`` for the machines of a Ray cluster.
        resenc: let nnU-Net plan a residual encoder U-Net of this size for the data, instead of the
            recipe's network.
        labelled_only: leave out the rounds that learn from unlabelled images.
        classes: labels of a fine-tuned model, background included, where a task lets one choose.
        from_scratch: start from random weights what the recipe fine-tunes.
    """

    preset: str
    work: Path
    export: Path
    data: Path | None = None
    splits: Path | None = None
    start_from: Path | None = None
    device: str = "cpu"
    jobs: int = 1
    engine: str = "local"
    resenc: ResEnc | None = None
    labelled_only: bool = False
    classes: int | None = None
    from_scratch: bool = False


class TrainingPipeline(Protocol):
    """Turns data into model folders for one task.

    Attributes:
        task: its name.
        presets: names of the recipes it ships.
    """

    task: str
    presets: tuple[str, ...]

    def train(self, request: TrainingRequest) -> tuple[Path, ...]:
        """Run every stage that is not finished yet; return the exported model folders."""


def find_pipeline(manager: pluggy.PluginManager, task: str) -> TrainingPipeline:
    """Return the training of a task.

    Raises:
        PluginError: no plugin provides one.
    """
    pipelines = {
        pipeline.task: pipeline
        for provided in manager.hook.gc_panther_training()
        for pipeline in provided
    }
    if task not in pipelines:
        raise PluginError(
            f"no plugin can train {task!r}",
            fix=f"Known: {', '.join(sorted(pipelines)) or 'none'}",
        )
    return pipelines[task]

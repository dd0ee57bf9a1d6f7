"""The passes of a model's folds over the windows of one image, with what memory there is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from gc_panther.errors import ProcessingError
from gc_panther.nnunet.inference.backends import Runner
from gc_panther.nnunet.inference.windows import Axes, Slices, Windows, blend_windows, window_logits
from gc_panther.task import RunContext
from gc_panther.text import count

logger = logging.getLogger(__name__)

T = TypeVar("T")
Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class WindowedImage:
    """What the folds of an ensemble see.

    Attributes:
        data: the image on the device, at least a patch large, shape (1, i, j, k).
        unpad: what undoes that padding of the logits.
        slices: the windows.
    """

    data: torch.Tensor
    unpad: Slices
    slices: Sequence[Slices]


class Folds:
    """Runs the folds of one model.

    Where a GPU's memory runs out, the same fold is tried again with half as many windows at once,
    down to one, and then with the sums in the main memory; what helped is kept for later cases.

    Args:
        path: of the model, for messages.
        runner: computes the passes.
        weights: by fold.
        heads: number of the networks' outputs.
        device: where the image and, at first, the sums are.

    Attributes:
        savings: what lack of memory led to, in words; empty where there was enough.
    """

    def __init__(
        self,
        path: Path,
        runner: Runner,
        weights: Mapping[int, Mapping[str, torch.Tensor]],
        heads: int,
        device: torch.device,
    ) -> None:
        self.savings = ""
        self._path = path
        self._runner = runner
        self._weights = weights
        self._heads = heads
        self._sums = device
        self._loaded: tuple[int, Network] | None = None

    def __iter__(self) -> Iterator[int]:
        """The folds' numbers, in order."""
        return iter(self._weights)

    def __len__(self) -> int:
        """How many folds there are."""
        return len(self._weights)

    @torch.inference_mode()
    def load(self, fold: int) -> Network:
        """Make a fold ready, unless it is the one that ran last."""
        if self._loaded is not None and self._loaded[0] == fold:
            return self._loaded[1]
        # Two large networks at once may be more than the memory holds.
        self._loaded = None
        network = self._runner.load(fold, self._weights[fold])
        self._loaded = (fold, network)
        return network

    def parts(
        self, fold: int, image: WindowedImage, windows: Windows, run: RunContext, stage: str
    ) -> list[torch.Tensor]:
        """One fold's logits in some windows.

        Args:
            fold: its number.
            image: where the windows are.
            windows: with the sets of axes to flip in each.
            run: progress and clock.
            stage: what the progress says before the fold.

        Returns:
            Half precision, in the main memory, shape (heads, i, j, k) each.

        Raises:
            ProcessingError: the network gave NaN or infinity.
            torch.OutOfMemoryError: even one window at once is too much.
        """

        def attempt() -> list[torch.Tensor]:
            with self._passes(fold, image, windows, run, stage) as answers:
                return [self._finite(answer.half(), fold).cpu() for answer in answers]

        return self._with_less_memory(attempt)

    def logits(
        self,
        fold: int,
        image: WindowedImage,
        mirroring: Sequence[Axes],
        run: RunContext,
        *,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> torch.Tensor:
        """One fold's logits on the network's grid.

        Args:
            fold: its number.
            image: its windows.
            mirroring: the sets of axes to flip in each window.
            run: progress and clock.
            out_of_time: asked before each pass whether to give up.

        Returns:
            Half precision, in the main memory, shape (heads, i, j, k).

        Raises:
            OutOfTimeError: ``out_of_time`` said so.
            ProcessingError: the network gave NaN or infinity.
            torch.OutOfMemoryError: even one window at once is too much.
        """
        windows: Windows = [(window, mirroring) for window in image.slices]

        def attempt() -> torch.Tensor:
            with self._passes(fold, image, windows, run, "", out_of_time) as answers:
                return self.blended(fold, image, answers)

        return self._with_less_memory(attempt)

    def blended(
        self, fold: int, image: WindowedImage, parts: Iterable[torch.Tensor]
    ) -> torch.Tensor:
        """One fold's logits on the network's grid, from those in all windows.

        Args:
            fold: its number.
            image: its windows.
            parts: logits of each window, in order, shape (heads, i, j, k) each.

        Returns:
            Half precision, in the main memory, shape (heads, i, j, k).

        Raises:
            ProcessingError: a NaN or infinity is among them.
        """
        logits = blend_windows(parts, image.slices, image.data.shape[1:], self._heads, self._sums)
        return self._finite(logits, fold)[image.unpad].cpu()

    def _finite(self, logits: torch.Tensor, fold: int) -> torch.Tensor:
        """The logits, if they are sound.

        Raises:
            ProcessingError: a NaN or infinity is among them.
        """
        if not bool(torch.isfinite(logits).all()):
            raise ProcessingError(
                "a network gave NaN or infinity",
                where=f"fold {fold} of {self._path}",
                fix="Look at the image's intensities; if they are sound, the weights are not",
            )
        return logits

    @contextmanager
    def _passes(
        self,
        fold: int,
        image: WindowedImage,
        windows: Windows,
        run: RunContext,
        stage: str,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> Iterator[Iterator[torch.Tensor]]:
        """The logits of some windows, computed as they are asked for; clock and progress run."""
        with run.clock.stage("compile"):
            network = self.load(fold)
        passes = sum(len(mirroring) for _, mirroring in windows)
        label = f"{self._path.name}: {stage}fold {list(self).index(fold) + 1} of {len(self)}"
        with run.clock.stage("network"):
            run.progress.start(label, passes)
            try:
                yield window_logits(
                    network,
                    image.data,
                    windows,
                    run.progress.advance,
                    self._runner.batch,
                    out_of_time,
                )
            finally:
                run.progress.finish()

    def _with_less_memory(self, attempt: Callable[[], T]) -> T:
        """Repeat what ran out of a GPU's memory with less, as long as there is less."""
        while True:
            try:
                return attempt()
            except torch.OutOfMemoryError:
                if not self._save_memory():
                    raise
            # Only here, with the exception gone, are its tensors gone as well.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _save_memory(self) -> bool:
        """Do the next cheapest thing against a lack of memory; return whether there was one."""
        if self._runner.batch > 1:
            self._runner.batch //= 2
            self.savings = f"{count(self._runner.batch, 'window')} at once"
        elif self._sums.type != "cpu":
            self._sums = torch.device("cpu")
            self.savings = "1 window at once, sums in the main memory"
        else:
            return False
        logger.warning("the GPU ran out of memory; going on with %s", self.savings)
        return True


def add_probabilities(total: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
    """Add the softmax of logits, shape (heads, i, j, k), to a sum of probabilities.

    Slab by slab: the whole image's logits in single precision, and their softmax, would be the
    peak of the process' memory.

    Returns:
        The sum, float32; it is ``total`` where there is one.
    """
    if total is None:
        total = torch.zeros(logits.shape)
    for index in range(logits.shape[1]):
        total[:, index] += torch.softmax(logits[:, index].float(), 0)
    return total

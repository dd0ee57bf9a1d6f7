"""What nnU-Net spends most of a test's training on, left out: pools, statistics and curves.

``python -m quick_nnunet JOB.json`` is ``python -m gc_panther.nnunet.training.jobs.worker`` without
them. With :data:`HOLD` in its environment it stops for ever where it has logged a line that
holds it.
"""

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from typing import Any
from unittest import mock

#: Voxels of a data set whose intensities nnU-Net describes; by itself it draws 100 million.
VOXELS = 10_000
#: Variable of the environment.
HOLD = "QUICK_NNUNET_HOLD"

log = logging.getLogger(__name__)


@contextmanager
def quick_nnunet() -> Iterator[None]:
    """Let nnU-Net's pools be threads, its fingerprints small, and its curves not drawn."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.training.logging import nnunet_logger

    extractor = fingerprint_extractor.DatasetFingerprintExtractor
    run = extractor.run

    def run_on_few(self: Any, *arguments: Any) -> Any:
        assert self.num_foreground_voxels_for_intensitystats > VOXELS
        self.num_foreground_voxels_for_intensitystats = VOXELS
        fingerprint = run(self, *arguments)
        log.info("%s: the fingerprint is written", self.dataset_name)
        return fingerprint

    pools = SimpleNamespace(Pool=ThreadPool)
    with ExitStack() as stack:
        for target, name, replacement in (
            (multiprocessing, "get_context", lambda _: pools),
            (extractor, "run", run_on_few),
            (nnunet_logger.LocalLogger, "plot_progress_png", lambda *_: None),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


def hold_after(text: str) -> None:
    """Stop for ever where a line with this text has been logged."""
    emit = logging.Logger.callHandlers

    def emit_and_wait(self: logging.Logger, record: logging.LogRecord) -> None:
        emit(self, record)
        if text in record.getMessage():
            log.info("waits for its end")
            time.sleep(3600)

    logging.Logger.callHandlers = emit_and_wait  # type: ignore[method-assign]


if __name__ == "__main__":
    # Nothing is drawn or split here, and the imports of these take longer than torch's.
    for name in (
        "seaborn",
        "matplotlib",
        "matplotlib.pyplot",
        "sklearn",
        "sklearn.model_selection",
    ):
        sys.modules[name] = mock.MagicMock(__spec__=ModuleSpec(name, None))
    from gc_panther.nnunet.training.jobs import worker

    if HOLD in os.environ:
        hold_after(os.environ[HOLD])
    with quick_nnunet():
        worker.main()

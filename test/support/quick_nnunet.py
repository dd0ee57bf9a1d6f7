"""What nnU-Net spends most of a test's training on, left out: pools, statistics and curves.

``python -m quick_nnunet JOB.json`` is ``python -m gc_panther.training.worker`` without them.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from typing import Any
from unittest import mock

#: Voxels of a data set whose intensities nnU-Net describes; by itself it draws 100 million.
VOXELS = 10_000


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
        return run(self, *arguments)

    pools = SimpleNamespace(Pool=ThreadPool)
    with ExitStack() as stack:
        for target, name, replacement in (
            (multiprocessing, "get_context", lambda _: pools),
            (extractor, "run", run_on_few),
            (nnunet_logger.LocalLogger, "plot_progress_png", lambda *_: None),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


if __name__ == "__main__":
    # Nothing is drawn here, and its import takes as long as torch's.
    sys.modules["seaborn"] = mock.MagicMock()
    from gc_panther.training import worker

    with quick_nnunet():
        worker.main()

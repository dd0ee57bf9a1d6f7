"""The folds of a model as one predictor: one process, one preprocessing, no workers.

Stages on the run's clock: ``preprocess``, ``compile`` (a fold's network is made ready), ``network``
(the forward passes) and ``resample`` (from the network's grid to the image's, and from logits to
labels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gc_panther.case import Volume
from gc_panther.errors import WeightsError, clear_memory_errors
from gc_panther.memory import check_memory
from gc_panther.nnunet.inference.adaptive import Fallback, run_adaptively
from gc_panther.nnunet.inference.anytime import FoldsInTime
from gc_panther.nnunet.inference.backends import batch_size, choose_runner
from gc_panther.nnunet.inference.folds import Folds, WindowedImage, add_probabilities
from gc_panther.nnunet.inference.openvino_graph import Graph, convert
from gc_panther.nnunet.inference.precision import Choice, precision_on_this_gpu
from gc_panther.nnunet.inference.preprocessing import NetworkInput, preprocess
from gc_panther.nnunet.inference.resampling import resample
from gc_panther.nnunet.inference.windows import Axes, mirror_combinations, window_slices
from gc_panther.nnunet.model.estimates import Grids, stages
from gc_panther.nnunet.model.folder import ModelFolder
from gc_panther.nnunet.model.network import build_network, fitting_plans
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext


@dataclass(frozen=True)
class Prediction:
    """What the ensemble says about one image.

    Attributes:
        labels_zyx: uint8 labels on the image's grid.
        probabilities: float32, shape (labels, z, y, x) on the image's grid. The mean of the
            folds' probabilities or, where logits are combined, the softmax of the mean logits.
        facts: JSON-compatible facts for the report.
    """

    labels_zyx: np.ndarray
    probabilities: np.ndarray
    facts: dict[str, Any]

    def probability_zyx(self, label: int) -> np.ndarray:
        """Probability of one label, float32, shape (z, y, x)."""
        return self.probabilities[label]


class Ensemble:
    """All folds of a model folder, loaded.

    The folds are combined in one of three ways:

    * ``probabilities``: each fold's logits are resampled to the image, softmax, mean over the
      folds, highest wins. What ``nnUNetv2_predict --save_probabilities`` per fold and
      ``nnUNetv2_ensemble`` give.
    * ``logits``: mean logits on the network's grid, resampled, highest wins. What
      ``nnUNetv2_predict -f 0 1 2 3 4`` gives.
    * ``vote``: each fold votes for its highest logit on the image's grid. Equal numbers of votes
      are decided by the mean probability, and equal probabilities by the lower label.

    The passes are computed by one of :mod:`gc_panther.nnunet.inference.backends`.

    Args:
        model: the folder.
        device: torch's name of the device.
        options: combine mode, mirroring and step size; the folds are the folder's.

    Raises:
        WeightsError: a checkpoint is damaged or unsafe, or does not fit its plans.
        UserError: the backend that was asked for cannot be used.
    """

    def __init__(self, model: ModelFolder, *, device: str, options: NnUNetOptions) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.model = model
        self._device = torch.device(device)
        self._options = options
        self._mirroring_axes = model.mirroring_axes if options.mirroring else ()
        self._heads = len(model.labels)
        with fitting_plans(model):
            self._plans = PlansManager(dict(model.plans))
            self._configuration = self._plans.get_configuration(model.configuration)
            self._patch = tuple(int(size) for size in self._configuration.patch_size)
            network = build_network(self._configuration, self._heads)
        self._expected = {
            name: (value.shape, value.dtype) for name, value in network.state_dict().items()
        }
        self._runner = choose_runner(
            options.backend,
            self._device,
            model.path,
            [self._configuration.network_arch_class_name]
            + [self._configuration.network_arch_init_kwargs, self._heads],
            network,
            self._patch,
        )
        self._folds = Folds(
            model.path, self._runner, self._all_weights(), self._heads, self._device
        )

    @torch.inference_mode()
    def predict(
        self, volume_lps: Volume, run: RunContext, *, label: int | None = None
    ) -> Prediction:
        """Segment one image.

        Args:
            volume_lps: a single-channel image in LPS order.
            run: progress, stage clock and, where there is one, the deadline, which may cost folds
                and mirrored copies (:mod:`gc_panther.nnunet.inference.anytime`).
            label: the only one that is wanted. The adaptive mode needs it, and is exact without.

        Raises:
            ProcessingError: out of memory, or a network gave NaN or infinity.
        """
        mirroring = mirror_combinations(self._mirroring_axes)
        only = label if self._options.mode == "adaptive" and run.deadline is None else None
        with clear_memory_errors("running the networks"):
            prepared, image = self._prepared(volume_lps, run, adaptive=only is not None)
            facts = {
                "folds": list(self._folds),
                "combine": self._options.combine,
                "mode": "exact",
                "backend": self._runner.name,
                **_precision_facts(self._runner.choice),
                "mirroring_axes": list(self._mirroring_axes),
                "step_size": self._options.step_size,
                "windows": len(image.slices),
                "passes": len(image.slices) * len(mirroring) * len(self._folds),
            }
            if run.deadline is not None:
                parts, found = self._folds_in_time(prepared, image, mirroring, run, run.deadline)
            elif only is not None:
                parts, found = self._folds_adaptively(image, mirroring, only, run)
            else:
                parts, found = self._all_folds(image, mirroring, run), {}
            mean, labels = self._combined(prepared, parts, run)
        if self._folds.savings:
            found = {**found, "out_of_memory": self._folds.savings}
        return Prediction(labels.to(torch.uint8).numpy(), mean.numpy(), {**facts, **found})

    def _prepared(
        self, volume: Volume, run: RunContext, *, adaptive: bool
    ) -> tuple[NetworkInput, WindowedImage]:
        """The preprocessed image and its windows; the first fold is loaded in parallel."""
        with ThreadPoolExecutor(1) as pool:
            ready = pool.submit(self._folds.load, next(iter(self._folds)))
            with run.clock.stage("preprocess"):
                prepared = preprocess(
                    volume,
                    self._plans,
                    self._configuration,
                    lambda grids: self._check_memory(grids, run, adaptive=adaptive),
                )
            with run.clock.stage("compile"):
                ready.result()
        return prepared, self._windowed(prepared.data)

    def _check_memory(self, grids: Grids, run: RunContext, *, adaptive: bool) -> None:
        """Refuse an image that needs more memory than there is, in whatever stage."""
        # Within a time limit, and adaptively, the folds' logits are combined at the end.
        kept = len(self._folds) if adaptive or run.deadline is not None else 2
        windows_step = self._options.step_size if adaptive else None
        for doing, needed in stages(grids, self._heads, kept, windows_step).items():
            check_memory(needed, doing=doing, where="image")

    def _all_folds(
        self, image: WindowedImage, mirroring: Sequence[Axes], run: RunContext
    ) -> Iterator[torch.Tensor]:
        """Each fold's logits on the network's grid, one after the other."""
        for fold in self._folds:
            yield self._folds.logits(fold, image, mirroring, run)

    def _folds_in_time(
        self,
        prepared: NetworkInput,
        image: WindowedImage,
        mirroring: Sequence[Axes],
        run: RunContext,
        deadline: float,
    ) -> tuple[Iterable[torch.Tensor], dict[str, Any]]:
        """Logits of the folds on the network's grid that a deadline allows, and the facts."""

        def predict(fold: int, chosen: Sequence[Axes], late: Callable[[], bool]) -> torch.Tensor:
            return self._folds.logits(fold, image, chosen, run, out_of_time=late)

        def combine(logits: torch.Tensor) -> None:
            if self._options.combine != "logits":
                with run.clock.stage("resample"):
                    add_probabilities(None, self._on_covered_box(logits, prepared))

        reached = FoldsInTime(list(self._folds), mirroring, deadline, predict, combine).run()
        passes = len(image.slices) * sum(reached.copies.values())
        facts = {**reached.facts(self.model.path.name), "passes": passes}
        if self._options.mode == "adaptive":
            facts["not_adaptive"] = "a time limit plans the passes"
        return reached.logits.values(), facts

    def _folds_adaptively(
        self, image: WindowedImage, mirroring: Sequence[Axes], label: int, run: RunContext
    ) -> tuple[Iterable[torch.Tensor], dict[str, Any]]:
        """Logits of the folds from part of the passes; from all where that falls back."""
        found = run_adaptively(self._folds, image, mirroring, label, run)
        if isinstance(found, Fallback):
            passes = len(image.slices) * len(mirroring) * len(self._folds) + found.passes
            facts = {"not_adaptive": found.reason, "passes": passes}
            return self._all_folds(image, mirroring, run), facts
        return found.logits, {
            "mode": "adaptive",
            "windows_with_mirroring": len(found.windows),
            "passes": found.passes,
        }

    def _combined(
        self, prepared: NetworkInput, parts: Iterable[torch.Tensor], run: RunContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities, shape (heads, z, y, x), and labels, shape (z, y, x).

        Only sums over the folds, whose logits on the network's grid ``parts`` gives, are kept.
        """
        combine = self._options.combine
        total: torch.Tensor | None = None
        votes: torch.Tensor | None = None
        count = 0
        for part in parts:
            count += 1
            if combine == "logits":
                total = part if total is None else total.add_(part)
                continue
            with run.clock.stage("resample"):
                logits = self._on_covered_box(part, prepared)
                total = add_probabilities(total, logits)
                if combine == "vote":
                    chosen = _one_hot(_highest(logits), self._heads)
                    votes = chosen if votes is None else votes.add_(chosen)
        assert total is not None, "a model folder has at least one fold"  # noqa: S101
        with run.clock.stage("resample"):
            mean = total.div_(count)
            decision = mean
            if combine == "logits":
                # Still in half precision: nnU-Net decides by the rounded logits.
                decision = self._on_covered_box(mean, prepared)
                mean = torch.softmax(decision.float(), 0)
            elif votes is not None:
                # A mean probability is at most one, so it only decides between equal votes.
                decision = votes.add_(mean, alpha=0.5)
            background = torch.zeros(self._heads)
            background[0] = 1.0
            return (
                self._on_image(mean, prepared, background),
                self._on_image(_highest(decision)[None], prepared, torch.zeros(1))[0],
            )

    def _windowed(self, data: np.ndarray) -> WindowedImage:
        """The image on the device, at least a patch large, and its windows."""
        from acvl_utils.cropping_and_padding.padding import pad_nd_image

        padded, unpad = pad_nd_image(
            torch.from_numpy(data), self._patch, "constant", {"value": 0}, True, None
        )
        slices = window_slices(padded.shape[1:], self._patch, self._options.step_size)
        return WindowedImage(padded.to(self._device), (slice(None), *unpad[1:]), slices)

    def _on_covered_box(self, logits: torch.Tensor, prepared: NetworkInput) -> torch.Tensor:
        """Logits on the covered part of the image, half precision, shape (heads, i, j, k)."""
        resampled = resample(
            logits,
            prepared.box_shape,
            self._configuration.spacing,
            prepared.spacing,
            self._configuration.resampling_fn_probabilities,
        )
        return torch.from_numpy(resampled)

    def _on_image(
        self, values: torch.Tensor, prepared: NetworkInput, outside: torch.Tensor
    ) -> torch.Tensor:
        """Channels on the whole image, shape (channels, z, y, x), ``outside`` the box."""
        full = torch.empty((len(values), *prepared.full_shape), dtype=values.dtype)
        full[...] = outside.view(-1, 1, 1, 1)
        full[(slice(None), *(slice(*end) for end in prepared.box))] = values
        return full.permute(0, *(axis + 1 for axis in self._plans.transpose_backward)).contiguous()

    def _all_weights(self) -> dict[int, dict[str, torch.Tensor]]:
        """The weights of all folds; a pack's digests are computed in parallel."""
        folds = list(self.model.checkpoints)
        # What torch.load trusts is a setting of the whole process, which threads would change.
        readers = len(folds) if self.model.pack is not None else 1
        with ThreadPoolExecutor(readers) as pool:
            return dict(zip(folds, pool.map(self._fitting_weights, folds), strict=True))

    def _fitting_weights(self, fold: int) -> dict[str, torch.Tensor]:
        """One fold's weights, whose names and shapes are the network's."""
        weights = self.model.read_weights(fold)
        for name in sorted(self._expected.keys() | weights.keys()):
            value = weights.get(name)
            if value is None or (value.shape, value.dtype) != self._expected.get(name):
                raise WeightsError(
                    f"the checkpoint does not fit its plans and its {self._heads} labels "
                    f"(in {name[:80]})",
                    where=self.model.checkpoints[fold],
                    fix="Plans, dataset.json and checkpoints have to come from the same training",
                )
        return weights


def openvino_graph(model: ModelFolder) -> Graph:
    """Convert the networks of a model folder, for a pack.

    Raises:
        GCPantherError: the plans cannot be used, or the network cannot be converted.
    """
    return convert(*_network_and_patch(model))


def precision_of(model: ModelFolder, device: str) -> Choice:
    """The precision in which a GPU computes the networks of a model folder.

    Raises:
        GCPantherError: the plans cannot be used.
    """
    gpu = torch.device(device)
    network, patch = _network_and_patch(model)
    return precision_on_this_gpu(network, gpu, patch, batch_size(gpu, patch))


def _network_and_patch(model: ModelFolder) -> tuple[torch.nn.Module, tuple[int, ...]]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with fitting_plans(model):
        configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
        patch = tuple(int(size) for size in configuration.patch_size)
        return build_network(configuration, len(model.labels)), patch


def _precision_facts(choice: Choice) -> dict[str, Any]:
    facts: dict[str, Any] = {"precision": choice.precision}
    if choice.reason:
        facts["precision_reason"] = choice.reason
    return facts


def _highest(values: torch.Tensor) -> torch.Tensor:
    """The label of the highest value, the lowest label of equal ones; uint8, shape (i, j, k).

    ``values.argmax(0)`` says the same, but takes longer on a CPU: 4.6 times as long for
    3 × 69 × 262 × 322 values on two cores.
    """
    best = values[0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8)
    for label in range(1, len(values)):
        higher = values[label] > best
        labels.masked_fill_(higher, label)
        torch.maximum(best, values[label], out=best)
    return labels


def _one_hot(labels: torch.Tensor, heads: int) -> torch.Tensor:
    """Float32 one-hot encoding, shape (heads, i, j, k)."""
    return torch.stack([labels == label for label in range(heads)]).float()

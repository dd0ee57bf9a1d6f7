"""The folds of a model as one predictor: one process, one preprocessing, no workers.

Stages on the run's clock: ``preprocess``, ``compile`` (a fold's network is made ready), ``network``
(the forward passes) and ``resample`` (from the network's grid to the image's, and from logits to
labels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gc_panther.case import Volume
from gc_panther.errors import GCPantherError, ProcessingError, WeightsError
from gc_panther.nnunet.anytime import FoldsInTime
from gc_panther.nnunet.backends import choose_runner
from gc_panther.nnunet.model_folder import ModelFolder
from gc_panther.nnunet.openvino_graph import Graph, convert
from gc_panther.nnunet.preprocessing import NetworkInput, preprocess
from gc_panther.nnunet.resampling import resample
from gc_panther.nnunet.windows import Slices, mirror_combinations, predict_windows, window_slices
from gc_panther.task import CaseRun, InferenceOptions

#: Packages whose network classes and layers plans may name.
_TRUSTED_PACKAGES = ("dynamic_network_architectures.", "torch.nn.")

#: Settings of a configuration that a case needs; they are looked at before the first one comes.
_USED_SETTINGS = (
    "spacing",
    "preprocessor_class",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_probabilities",
)


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


@dataclass(frozen=True)
class _PreparedCase:
    """What the folds of an ensemble share.

    Attributes:
        prepared: the preprocessed image and how to come back from its grid.
        data: the image on the device, at least a patch large, shape (1, i, j, k).
        unpad: what undoes that padding.
        slices: the windows.
    """

    prepared: NetworkInput
    data: torch.Tensor
    unpad: Slices
    slices: Sequence[Slices]


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

    The passes are computed by one of :mod:`gc_panther.nnunet.backends`.

    Args:
        model: the folder.
        device: torch's name of the device.
        options: combine mode, mirroring and step size; the folds are the folder's.

    Raises:
        WeightsError: a checkpoint is damaged or unsafe, or does not fit its plans.
        UserError: the backend that was asked for cannot be used.
    """

    def __init__(self, model: ModelFolder, *, device: str, options: InferenceOptions) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.model = model
        self._device = torch.device(device)
        self._options = options
        self._mirroring_axes = model.mirroring_axes if options.mirroring else ()
        self._heads = len(model.labels)
        with _fitting_plans(model):
            self._plans = PlansManager(dict(model.plans))
            self._configuration = self._plans.get_configuration(model.configuration)
            for setting in _USED_SETTINGS:
                getattr(self._configuration, setting)
            self._patch = tuple(int(size) for size in self._configuration.patch_size)
            network = _build_network(self._configuration, self._heads)
        self._expected = {name: value.shape for name, value in network.state_dict().items()}
        self._runner = choose_runner(
            options.backend,
            self._device,
            model.path,
            [self._configuration.network_arch_class_name]
            + [self._configuration.network_arch_init_kwargs, self._heads],
            network,
            self._patch,
        )
        self._weights = {fold: self._fitting_weights(fold) for fold in model.checkpoints}

    @torch.inference_mode()
    def predict(self, volume_lps: Volume, run: CaseRun) -> Prediction:
        """Segment one image.

        Args:
            volume_lps: a single-channel image in LPS order.
            run: progress, stage clock and, where there is one, the deadline, which may cost folds
                and mirrored copies (:mod:`gc_panther.nnunet.anytime`).

        Raises:
            ProcessingError: out of memory, or a network gave NaN or infinity.
        """
        with _memory_errors(self._device):
            with run.clock.stage("preprocess"):
                prepared = preprocess(volume_lps, self._plans, self._configuration)
                data, unpad = self._padded(prepared.data)
            slices = window_slices(data.shape[1:], self._patch, self._options.step_size)
            case = _PreparedCase(prepared, data, unpad, slices)
            if run.deadline is None:
                parts: Iterable[torch.Tensor] = self._all_folds(case, run)
                limited: dict[str, Any] = {}
            else:
                parts, limited = self._folds_in_time(case, run, run.deadline)
            mean, labels = self._combined(prepared, parts, run)
        passes = len(slices) * 2 ** len(self._mirroring_axes) * len(self._weights)
        facts = {
            "folds": list(self._weights),
            "combine": self._options.combine,
            "backend": self._runner.name,
            "mirroring_axes": list(self._mirroring_axes),
            "step_size": self._options.step_size,
            "windows": len(slices),
            "passes": passes,
            **limited,
        }
        return Prediction(labels.to(torch.uint8).numpy(), mean.numpy(), facts)

    def _all_folds(self, case: _PreparedCase, run: CaseRun) -> Iterator[torch.Tensor]:
        """Each fold's logits on the network's grid, one after the other."""
        mirroring = mirror_combinations(self._mirroring_axes)
        for fold in self._weights:
            yield self._fold_logits(fold, case, mirroring, run)

    def _folds_in_time(
        self, case: _PreparedCase, run: CaseRun, deadline: float
    ) -> tuple[Iterable[torch.Tensor], dict[str, Any]]:
        """Logits of the folds on the network's grid that a deadline allows, and the facts."""

        def combine(logits: torch.Tensor) -> None:
            if self._options.combine != "logits":
                self._fold_probabilities(logits, case.prepared, run)

        reached = FoldsInTime(
            list(self._weights),
            mirror_combinations(self._mirroring_axes),
            deadline,
            lambda fold, chosen, late: self._fold_logits(fold, case, chosen, run, late),
            combine,
        )
        passes = len(case.slices) * sum(reached.copies.values())
        return reached.logits.values(), {**reached.facts(self.model.path.name), "passes": passes}

    def _combined(
        self, prepared: NetworkInput, parts: Iterable[torch.Tensor], run: CaseRun
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
            if combine != "logits":
                logits, part = self._fold_probabilities(part, prepared, run)
                if combine == "vote":
                    chosen = _one_hot(_highest(logits), self._heads)
                    votes = chosen if votes is None else votes.add_(chosen)
            total = part if total is None else total.add_(part)
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

    def _fold_probabilities(
        self, logits: torch.Tensor, prepared: NetworkInput, run: CaseRun
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One fold's logits and probabilities on the covered box, shape (heads, i, j, k)."""
        with run.clock.stage("resample"):
            resampled = self._on_covered_box(logits, prepared)
            return resampled, torch.softmax(resampled.float(), 0)

    def _padded(self, data: np.ndarray) -> tuple[torch.Tensor, Slices]:
        """The image on the device, at least a patch large, and the slices that undo the padding."""
        from acvl_utils.cropping_and_padding.padding import pad_nd_image

        padded, unpad = pad_nd_image(
            torch.from_numpy(data), self._patch, "constant", {"value": 0}, True, None
        )
        return padded.to(self._device), (slice(None), *unpad[1:])

    def _fold_logits(
        self,
        fold: int,
        case: _PreparedCase,
        mirroring: Sequence[tuple[int, ...]],
        run: CaseRun,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> torch.Tensor:
        """One fold's logits on the network's grid, half precision, in the main memory.

        Raises:
            OutOfTimeError: ``out_of_time`` said so.
        """
        with ExitStack() as stack:
            with run.clock.stage("compile"):
                network = self._runner.load(fold, self._weights[fold])
            stack.enter_context(run.clock.stage("network"))
            stack.enter_context(self._runner.during_passes())
            number = list(self._weights).index(fold) + 1
            label = f"{self.model.path.name}: fold {number} of {len(self._weights)}"
            run.progress.start(label, len(case.slices) * len(mirroring))
            stack.callback(run.progress.finish)
            logits = predict_windows(
                network,
                case.data,
                self._heads,
                case.slices,
                self._patch,
                mirroring,
                run.progress.advance,
                self._runner.batch,
                out_of_time,
            )
            if not bool(torch.isfinite(logits).all()):
                raise ProcessingError(
                    "a network gave NaN or infinity",
                    where=f"fold {fold} of {self.model.path}",
                    fix="Look at the image's intensities; if they are sound, the weights are not",
                )
            return logits[case.unpad].cpu()

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

    def _fitting_weights(self, fold: int) -> dict[str, torch.Tensor]:
        """One fold's weights, whose names and shapes are the network's."""
        weights = self.model.read_weights(fold)
        for name in sorted(self._expected.keys() | weights.keys()):
            if name not in weights or weights[name].shape != self._expected.get(name):
                raise WeightsError(
                    f"the checkpoint does not fit its plans and its {self._heads} labels "
                    f"(in {name})",
                    where=self.model.checkpoints[fold],
                    fix="Plans, dataset.json and checkpoints have to come from the same training",
                )
        return weights


def openvino_graph(model: ModelFolder) -> Graph:
    """Convert the networks of a model folder, for a pack.

    Raises:
        GCPantherError: the plans cannot be used, or the network cannot be converted.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with _fitting_plans(model):
        configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
        patch = tuple(int(size) for size in configuration.patch_size)
        network = _build_network(configuration, len(model.labels))
    return convert(network, patch)


def _build_network(configuration: Any, heads: int) -> torch.nn.Module:
    """The network that the plans describe, on the meta device: without memory for weights.

    No trainer's source is needed for it.

    Raises:
        WeightsError: the plans name something else than a known network or layer.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name, arguments = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
    imported = configuration.network_arch_init_kwargs_req_import
    _refuse_unknown(name)
    for argument in imported:
        if arguments[argument] is not None:
            _refuse_unknown(arguments[argument])
    with torch.device("meta"):
        network: torch.nn.Module = get_network_from_plans(
            name, arguments, imported, 1, heads, allow_init=False, deep_supervision=False
        )
    return network


def _refuse_unknown(name: str) -> None:
    """Plans are data: they may choose among layers, but must not make Python call anything."""
    import pydoc

    trusted = name.startswith(_TRUSTED_PACKAGES)
    found = pydoc.locate(name) if trusted else None
    # nnU-Net looks for classes that moved; it finds them in the trusted packages only.
    if not trusted or not (
        found is None or (isinstance(found, type) and issubclass(found, torch.nn.Module))
    ):
        raise WeightsError(
            f"the plans name {name!r}, which is no network layer of "
            f"{' or '.join(package.rstrip('.') for package in _TRUSTED_PACKAGES)}"
        )


@contextmanager
def _fitting_plans(model: ModelFolder) -> Iterator[None]:
    """Say that the plans are wrong where nnU-Net stumbles over them."""
    try:
        yield
    except GCPantherError:
        raise
    # Whatever is missing or of the wrong type in plans shows as one of these.
    except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the plans cannot be used ({type(error).__name__}: {error})",
            where=model.path,
            fix="Copy plans.json from nnU-Net's results folder again",
        ) from error


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    """Say which memory ran out; every other error goes its way."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ProcessingError(
            "the GPU ran out of memory",
            where=device.type,
            fix="Free the GPU, choose one with more memory, or use --device cpu",
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise ProcessingError(
            "the machine ran out of memory", fix="Give the container more, or a smaller image"
        ) from error


def _highest(values: torch.Tensor) -> torch.Tensor:
    """The label of the highest value, the lowest label of equal ones; uint8, shape (i, j, k).

    ``values.argmax(0)`` says the same, but takes some twenty times longer on a CPU.
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

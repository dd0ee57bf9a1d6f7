"""Models to fine-tune from: what has to agree with the training that goes on from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.documents import resolved_configuration
from gc_panther.nnunet.training.models.transfer import require_fit

if TYPE_CHECKING:
    from gc_panther.nnunet.model.folder import ModelFolder

#: What a person calls the settings of a configuration that weights depend on.
SETTINGS = {
    "spacing": "spacing in mm",
    "patch_size": "patch",
    "normalization_schemes": "normalization",
    "use_mask_for_norm": "normalization within a mask",
    "preprocessor_name": "preprocessor",
}
#: The same for the architecture's arguments; others have nnU-Net's names.
ARGUMENTS = {
    "n_stages": "stages",
    "features_per_stage": "features",
    "kernel_sizes": "kernels",
    "n_blocks_per_stage": "blocks",
    "n_conv_per_stage_decoder": "decoder convolutions",
}
#: Relative difference up to which two numbers of plans are the same.
TOLERANCE = 1e-4


def require_same_network(
    model: ModelFolder, configuration: Mapping[str, Any], transpose: Sequence[int] = (0, 1, 2)
) -> None:
    """See that a training can go on from a model's weights: its configuration and every tensor.

    The model's own configuration counts, the one that its checkpoints name. Segmentation heads may
    differ.

    Args:
        model: to start from.
        configuration: of the training's plans.
        transpose: order of the axes in the training's plans, ``transpose_forward``.

    Raises:
        WeightsError: something differs; the message names all of it.
    """
    own = resolved_configuration(model.plans, model.configuration, model.path)
    faults = list(_differences(own, configuration))
    order = list(model.plans.get("transpose_forward", (0, 1, 2)))
    if order != list(transpose):
        faults.append(_fault("order of axes", order, list(transpose)))
    channels = model.dataset_json.get("channel_names") or model.dataset_json.get("modality") or {}
    if len(channels) != 1:
        faults.append(_fault("input channels", len(channels), 1))
    if faults:
        raise WeightsError(
            f"the model's configuration {model.configuration} is not the training's: "
            + "; ".join(faults),
            where=model.path,
            fix="Start from a model of the same network and preprocessing, or leave --from out",
        )
    _require_tensors(model, configuration)


def _differences(own: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[str]:
    for key, name in SETTINGS.items():
        if not _same(own.get(key), training.get(key)):
            yield _fault(name, own.get(key), training.get(key))
    mine, theirs = (part.get("architecture") or {} for part in (own, training))
    classes = [str(part.get("network_class_name")) for part in (mine, theirs)]
    if classes[0] != classes[1]:
        yield _fault("architecture", *(name.rpartition(".")[2] for name in classes))
    old, new = (part.get("arch_kwargs") or {} for part in (mine, theirs))
    for key in [*new, *(key for key in old if key not in new)]:
        if not _same(old.get(key), new.get(key)):
            yield _fault(ARGUMENTS.get(key, key), old.get(key), new.get(key))


def _require_tensors(model: ModelFolder, configuration: Mapping[str, Any]) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    from gc_panther.nnunet.model.network import build_network, fitting_plans

    fold = min(model.checkpoints)
    with fitting_plans(model):
        network = build_network(ConfigurationManager(dict(configuration)), len(model.labels))
    try:
        require_fit(network.state_dict(), model.read_weights(fold), heads=False)
    except WeightsError as error:
        where = error.where or model.checkpoints[fold]
        raise WeightsError(error.what, where=where, fix=error.fix) from error


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=TOLERANCE)
        except TypeError:
            return False
    return bool(one == other)


def _fault(name: str, own: Any, training: Any) -> str:
    return f"{name} {_shown(own)} instead of {_shown(training)}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        is_size = len(value) == 3 and all(isinstance(v, int | float) for v in value)
        joint = "×" if is_size else ", "
        return joint.join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What nnU-Net's plans, dataset.json and checkpoints have to say, checked once and by field.

The models know the fields that inference uses; what else nnU-Net and others write is let through.
Networks are described by :mod:`gc_panther.nnunet.model.architecture`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from gc_panther.errors import WeightsError
from gc_panther.model_identity import validation_problem
from gc_panther.nnunet.model.architecture import (
    Architecture,
    Document,
    OldArchitecture,
    WithArchitecture,
    as_list,
)

#: Voxels of a patch; nnU-Net's largest presets stay below a quarter of it.
MOST_PATCH_VOXELS = 2**26
#: A mask's values are bytes, and one is kept free.
MOST_LABELS = 255

PLANS = "plans.json"
_COPY = "Copy the model from nnU-Net's results folder again"

M = TypeVar("M", bound=BaseModel)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must not repeat")
    return values


ThreeFloats = Annotated[
    list[Annotated[FiniteFloat, Field(ge=1e-3, le=1e3)]],
    BeforeValidator(as_list),
    Field(min_length=3, max_length=3),
]
Patch = Annotated[
    list[Annotated[int, Field(ge=1, le=2048)]],
    BeforeValidator(as_list),
    Field(min_length=3, max_length=3),
]
Permutation = Annotated[
    tuple[Annotated[int, Field(ge=0, le=2)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=3, max_length=3),
    AfterValidator(_distinct),
]
#: Spatial axes of a network's input that may be mirrored.
MirroringAxes = Annotated[
    tuple[Annotated[int, Field(ge=0, le=2)], ...],
    BeforeValidator(_as_tuple),
    Field(max_length=3),
    AfterValidator(_distinct),
]


class Resampling(Document):
    """Settings of one of nnU-Net's resampling functions."""

    model_config = ConfigDict(extra="forbid")

    is_seg: Literal[False] = False
    order: Annotated[int, Field(ge=0, le=5)] = 3
    order_z: Annotated[int, Field(ge=0, le=5)] = 0
    force_separate_z: bool | None = None
    num_threads: Annotated[int, Field(ge=1, le=1024)] = 4
    memefficient_seg_resampling: bool = False
    separate_z_anisotropy_threshold: Annotated[FiniteFloat, Field(gt=0)] = 3.0
    mode: Literal["linear", "nearest", "nearest-exact"] = "linear"
    aniso_axis_mode: Literal["linear", "nearest", "nearest-exact"] = "nearest-exact"


ResamplingName = Literal[
    "resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"
]
Normalization = Literal[
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
]


class Configuration(Document):
    """A configuration of the plans, as far as inference uses it."""

    spacing: ThreeFloats
    patch_size: Patch
    preprocessor_name: Literal["DefaultPreprocessor"]
    normalization_schemes: Annotated[
        list[Normalization], BeforeValidator(as_list), Field(min_length=1, max_length=1)
    ]
    use_mask_for_norm: Annotated[
        list[bool], BeforeValidator(as_list), Field(min_length=1, max_length=1)
    ]
    resampling_fn_data: ResamplingName
    resampling_fn_data_kwargs: Resampling
    resampling_fn_probabilities: ResamplingName
    resampling_fn_probabilities_kwargs: Resampling
    architecture: Architecture | None = None

    @field_validator("patch_size")
    @classmethod
    def _bounded(cls, patch: list[int]) -> list[int]:
        if math.prod(patch) > MOST_PATCH_VOXELS:
            raise ValueError(f"has more than {MOST_PATCH_VOXELS} voxels")
        return patch

    @model_validator(mode="after")
    def _patch_fits_strides(self) -> Self:
        if self.architecture is not None:
            strides = self.architecture.arch_kwargs.total_strides()
            if any(size % stride for size, stride in zip(self.patch_size, strides, strict=True)):
                raise ValueError(
                    f"patch_size: {self.patch_size} is not a multiple of the network's strides, "
                    f"{strides}"
                )
        return self


class Intensities(Document):
    """Of the foreground of a channel's training images."""

    mean: float | None = None
    std: float | None = None
    percentile_00_5: float | None = None
    percentile_99_5: float | None = None


class _Configurations(Document):
    configurations: dict[str, dict[str, Any]]


class Plans(Document):
    """nnU-Net's plans without their configurations."""

    transpose_forward: Permutation
    transpose_backward: Permutation
    foreground_intensity_properties_per_channel: dict[str, Intensities] | None = None
    foreground_intensity_properties_by_modality: dict[str, Intensities] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [self.transpose_forward[axis] for axis in self.transpose_backward] != [0, 1, 2]:
            raise ValueError("transpose_backward does not undo transpose_forward")
        if "0" not in self.intensities():
            raise ValueError("foreground_intensity_properties_per_channel has no channel '0'")
        return self

    def intensities(self) -> Mapping[str, Intensities]:
        """Of each channel, under the newer or the older name."""
        return (
            self.foreground_intensity_properties_per_channel
            or self.foreground_intensity_properties_by_modality
            or {}
        )


class Dataset(Document):
    """nnU-Net's dataset.json."""

    labels: dict[str, int | list[int]] | None = None
    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None


class InitArguments(Document):
    """What the trainer of a checkpoint was made with."""

    configuration: Annotated[str, Field(max_length=200)] = "3d_fullres"
    plans: Any = None
    dataset_json: Any = None


def _nothing_as_empty(value: Any) -> Any:
    return {} if value is None else value


class CheckpointFacts(Document):
    """What a checkpoint holds besides its weights."""

    trainer_name: str = ""
    init_args: Annotated[InitArguments, BeforeValidator(_nothing_as_empty)] = InitArguments()
    inference_allowed_mirroring_axes: MirroringAxes | None = None


def validated(kind: type[M], document: Any, name: str, where: Path, *, below: str = "") -> M:
    """A document that has all its fields as they must be.

    Args:
        kind: the model that knows the fields.
        document: JSON-compatible values.
        name: what a person calls it, such as ``plans.json``.
        where: the file or the model folder.
        below: the field of the document that is checked, with a final stop.

    Raises:
        WeightsError: a field is missing or wrong; the message names it.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise WeightsError(
            f"{name} cannot be used: {below}{validation_problem(error)}",
            where=where,
            fix=_COPY,
        ) from error


def check_plans(document: Mapping[str, Any], configuration: str, where: Path) -> None:
    """Check nnU-Net's plans and the configuration that is used.

    Raises:
        WeightsError: a field is missing or wrong; the message names it.
    """
    plans = validated(Plans, document, PLANS, where)
    below = f"configurations.{configuration[:40]}."
    resolved = resolved_configuration(document, configuration, where)
    used = validated(Configuration, resolved, PLANS, where, below=below)
    if used.architecture is None and "UNet_class_name" not in resolved:
        validated(WithArchitecture, resolved, PLANS, where, below=below)
    elif used.architecture is None:
        validated(OldArchitecture, resolved, PLANS, where, below=below)
    if "CTNormalization" in used.normalization_schemes:
        known = plans.intensities()["0"]
        needed = (known.mean, known.std, known.percentile_00_5, known.percentile_99_5)
        if not all(value is not None and math.isfinite(value) for value in needed):
            raise WeightsError(
                f"{PLANS} cannot be used: foreground_intensity_properties_per_channel.0: "
                "CTNormalization needs a finite mean, std and percentiles",
                where=where,
                fix=_COPY,
            )


def resolved_configuration(
    plans: Mapping[str, Any], configuration: str, where: Path
) -> dict[str, Any]:
    """A configuration of the plans with what it inherits from others.

    Raises:
        WeightsError: it, or one that it inherits from, is not there.
    """
    known = validated(_Configurations, plans, PLANS, where).configurations
    chain: list[str] = []
    following: Any = configuration
    while following is not None:
        if type(following) is not str or following in chain or following not in known:
            raise WeightsError(
                f"the plans have no configuration {str(following)[:80]!r}"
                + (f", from which {chain[-1]} could inherit" if chain else ""),
                where=where,
                fix="Plans, dataset.json and checkpoints have to come from the same training; "
                f"the plans have {', '.join(known)[:200] or 'none'}",
            )
        chain.append(following)
        following = known[following].get("inherits_from")
    return {key: value for one in reversed(chain) for key, value in known[one].items()}

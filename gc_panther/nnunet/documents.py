"""What nnU-Net's plans, dataset.json and checkpoints have to say, checked once and by field.

The models know the fields that inference uses; what else nnU-Net and others write is let through.
Sizes are bounded, so that plans cannot ask for a network that no machine could hold.
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

#: Voxels of a patch; nnU-Net's largest presets stay below a quarter of it.
MOST_PATCH_VOXELS = 2**26
#: A mask's values are bytes, and one is kept free.
MOST_LABELS = 255

PLANS = "plans.json"
_COPY = "Copy the model from nnU-Net's results folder again"

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def _as_list(value: Any) -> Any:
    """A checkpoint's plans may hold tuples where those of a file hold lists."""
    return list(value) if isinstance(value, tuple) else value


def _one_as_list(value: Any) -> Any:
    return [value] if type(value) is int else _as_list(value)


def _one_as_three(value: Any) -> Any:
    return [value] * 3 if type(value) is int else _as_list(value)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _odd(value: int) -> int:
    # An even kernel would change the size of what it is applied to.
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must not repeat")
    return values


def _layer(package: str, *names: str) -> AfterValidator:
    """Check a field that names one of some classes of a package.

    Plans are data: they may choose among layers, but must not make Python call anything. nnU-Net
    looks for classes that moved by the last part of their name.
    """

    def check(name: str) -> str:
        if not name.startswith(f"{package}.") or name.rpartition(".")[2] not in names:
            raise ValueError(
                f"{name[:80]!r} is no network layer of {package} that is supported "
                f"({', '.join(names)})"
            )
        return name

    return AfterValidator(check)


Network = Annotated[
    str,
    _layer("dynamic_network_architectures", "PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"),
]
Convolution = Annotated[str, _layer("torch.nn", "Conv3d")]
Norm = Annotated[str, _layer("torch.nn", "InstanceNorm3d", "BatchNorm3d")]
Dropout = Annotated[str, _layer("torch.nn", "Dropout3d", "Dropout")]
Nonlinearity = Annotated[
    str,
    _layer("torch.nn", "LeakyReLU", "ReLU", "ReLU6", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
]

ThreeFloats = Annotated[
    list[Annotated[FiniteFloat, Field(ge=1e-3, le=1e3)]],
    BeforeValidator(_as_list),
    Field(min_length=3, max_length=3),
]
Patch = Annotated[
    list[Annotated[int, Field(ge=1, le=2048)]],
    BeforeValidator(_as_list),
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
Kernel = Annotated[
    list[Annotated[int, Field(ge=1, le=31), AfterValidator(_odd)]],
    BeforeValidator(_one_as_three),
    Field(min_length=3, max_length=3),
]
Stride = Annotated[
    list[Annotated[int, Field(ge=1, le=64)]],
    BeforeValidator(_one_as_three),
    Field(min_length=3, max_length=3),
]
#: One value per stage, or one for all.
PerStage = Annotated[list[T], BeforeValidator(_one_as_list), Field(min_length=1, max_length=12)]
Features = PerStage[Annotated[int, Field(ge=1, le=8192)]]
Blocks = PerStage[Annotated[int, Field(ge=1, le=32)]]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class LayerOptions(_Document):
    """What a norm, a dropout or a nonlinearity is made with; names as in ``torch.nn``."""

    model_config = ConfigDict(extra="forbid")

    eps: Annotated[FiniteFloat, Field(gt=0)] = 1e-5
    affine: bool = True
    momentum: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.1
    track_running_stats: bool = False
    inplace: bool = False
    negative_slope: FiniteFloat = 0.01
    alpha: FiniteFloat = 1.0
    p: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.5


class NetworkArguments(_Document):
    """What a U-Net is made with; names as in ``dynamic_network_architectures``."""

    model_config = ConfigDict(extra="forbid")

    n_stages: Annotated[int, Field(ge=2, le=12)]
    features_per_stage: Features
    conv_op: Convolution
    kernel_sizes: PerStage[Kernel]
    strides: PerStage[Stride]
    n_blocks_per_stage: Blocks | None = None
    n_conv_per_stage: Blocks | None = None
    n_conv_per_stage_decoder: Blocks
    conv_bias: bool = False
    norm_op: Norm | None = None
    norm_op_kwargs: LayerOptions | None = None
    dropout_op: Dropout | None = None
    dropout_op_kwargs: LayerOptions | None = None
    nonlin: Nonlinearity | None = None
    nonlin_kwargs: LayerOptions | None = None
    nonlin_first: bool = False
    bottleneck_channels: None = None
    stem_channels: Annotated[int, Field(ge=1, le=8192)] | None = None
    deep_supervision: bool = False

    @field_validator("strides")
    @classmethod
    def _full_resolution_first(cls, strides: list[list[int]]) -> list[list[int]]:
        # The network's answer would be smaller than its window.
        if strides[0] != [1, 1, 1]:
            raise ValueError("the first stage must have stride 1")
        return strides

    @model_validator(mode="after")
    def _one_value_per_stage(self) -> Self:
        for name, value in self:
            stages = self.n_stages - (name == "n_conv_per_stage_decoder")
            if isinstance(value, list) and len(value) not in (1, stages):
                raise ValueError(f"{name} has {len(value)} values, n_stages wants {stages}")
        return self

    def total_strides(self) -> list[int]:
        """By which factor the network's last stage is smaller than its input, per axis."""
        strides = self.strides if len(self.strides) > 1 else self.strides * self.n_stages
        return [math.prod(axis) for axis in zip(*strides, strict=True)]


class Architecture(_Document):
    """The network of a configuration."""

    network_class_name: Network
    arch_kwargs: NetworkArguments
    kw_requires_import: Annotated[
        list[Literal["conv_op", "norm_op", "dropout_op", "nonlin"]],
        BeforeValidator(_as_list),
        Field(alias="_kw_requires_import", max_length=4),
    ]


class _WithArchitecture(_Document):
    architecture: Architecture


class OldArchitecture(_Document):
    """The network in plans of nnU-Net before version 2.3; nnU-Net translates them."""

    UNet_class_name: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    UNet_base_num_features: Annotated[int, Field(ge=1, le=8192)]
    unet_max_num_features: Annotated[int, Field(ge=1, le=8192)]
    n_conv_per_stage_encoder: Blocks
    n_conv_per_stage_decoder: Blocks
    num_pool_per_axis: Any
    pool_op_kernel_sizes: PerStage[Stride]
    conv_kernel_sizes: PerStage[Kernel]


class Resampling(_Document):
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


class Configuration(_Document):
    """A configuration of the plans, as far as inference uses it."""

    spacing: ThreeFloats
    patch_size: Patch
    preprocessor_name: Literal["DefaultPreprocessor"]
    normalization_schemes: Annotated[
        list[Normalization], BeforeValidator(_as_list), Field(min_length=1, max_length=1)
    ]
    use_mask_for_norm: Annotated[
        list[bool], BeforeValidator(_as_list), Field(min_length=1, max_length=1)
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
                    f"patch_size: {self.patch_size} is no multiple of the network's strides, "
                    f"{strides}"
                )
        return self


class Intensities(_Document):
    """Of the foreground of a channel's training images."""

    mean: float | None = None
    std: float | None = None
    percentile_00_5: float | None = None
    percentile_99_5: float | None = None


class _Configurations(_Document):
    configurations: dict[str, dict[str, Any]]


class Plans(_Document):
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


class Dataset(_Document):
    """nnU-Net's dataset.json."""

    labels: dict[str, int | list[int]] | None = None
    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None


class InitArguments(_Document):
    """What the trainer of a checkpoint was made with."""

    configuration: str = "3d_fullres"
    plans: Any = None
    dataset_json: Any = None


def _nothing_as_empty(value: Any) -> Any:
    return {} if value is None else value


class CheckpointFacts(_Document):
    """What a checkpoint says beside its weights."""

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
        validated(_WithArchitecture, resolved, PLANS, where, below=below)
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

"""The networks that nnU-Net's plans may describe, checked by field.

Sizes are bounded, so that plans cannot ask for a network that no machine could hold.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

T = TypeVar("T")


class Document(BaseModel):
    """Values of the right type; unknown fields are let through."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def as_list(value: Any) -> Any:
    """A checkpoint's plans may hold tuples where those of a file hold lists."""
    return list(value) if isinstance(value, tuple) else value


def _one_as_list(value: Any) -> Any:
    return [value] if type(value) is int else as_list(value)


def _one_as_three(value: Any) -> Any:
    return [value] * 3 if type(value) is int else as_list(value)


def _odd(value: int) -> int:
    # An even kernel would change the size of what it is applied to.
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


def _layer(package: str, *names: str) -> AfterValidator:
    """Check a field that names one of some classes of a package.

    Plans are data: they may choose among layers, but must not make Python call anything. nnU-Net
    finds classes that moved by the last part of their name.
    """

    def check(name: str) -> str:
        if not name.startswith(f"{package}.") or name.rpartition(".")[2] not in names:
            raise ValueError(
                f"{name[:80]!r} is not a supported network layer of {package} ({', '.join(names)})"
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


class LayerOptions(Document):
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


class NetworkArguments(Document):
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
                raise ValueError(f"{name} has {len(value)} values, n_stages requires {stages}")
        return self

    def total_strides(self) -> list[int]:
        """By which factor the network's last stage is smaller than its input, per axis."""
        strides = self.strides if len(self.strides) > 1 else self.strides * self.n_stages
        return [math.prod(axis) for axis in zip(*strides, strict=True)]


class Architecture(Document):
    """The network of a configuration."""

    network_class_name: Network
    arch_kwargs: NetworkArguments
    kw_requires_import: Annotated[
        list[Literal["conv_op", "norm_op", "dropout_op", "nonlin"]],
        BeforeValidator(as_list),
        Field(alias="_kw_requires_import", max_length=4),
    ]


class WithArchitecture(Document):
    """A configuration of current plans."""

    architecture: Architecture


class OldArchitecture(Document):
    """The network in plans of nnU-Net before version 2.3; nnU-Net translates them."""

    UNet_class_name: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    UNet_base_num_features: Annotated[int, Field(ge=1, le=8192)]
    unet_max_num_features: Annotated[int, Field(ge=1, le=8192)]
    n_conv_per_stage_encoder: Blocks
    n_conv_per_stage_decoder: Blocks
    num_pool_per_axis: Any
    pool_op_kernel_sizes: PerStage[Stride]
    conv_kernel_sizes: PerStage[Kernel]

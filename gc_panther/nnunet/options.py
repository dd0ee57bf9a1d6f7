"""What a user may choose about inference with nnU-Net's ensembles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt

from gc_panther.options import Option, Options

Combine = Literal["probabilities", "logits", "vote"]
Backend = Literal["auto", "torch", "openvino"]
Mode = Literal["exact", "adaptive"]


def _listed(folds: Any) -> Any:
    """The numbers of a text such as ``0,1,2``; anything else unchanged."""
    if not isinstance(folds, str):
        return folds
    numbers = [fold.strip() for fold in folds.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ValueError("not a list of numbers")
    return tuple(map(int, numbers))


def _once(folds: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """What is named twice counts once."""
    return None if folds is None else tuple(dict.fromkeys(folds))


class NnUNetOptions(Options):
    """What a user may choose about inference; the defaults are the ones to submit with."""

    combine: Annotated[Combine, Field(description="How the folds become one answer.")] = (
        "probabilities"
    )
    folds: Annotated[
        tuple[NonNegativeInt, ...] | None,
        BeforeValidator(_listed),
        AfterValidator(_once),
        Field(description="Folds to use, such as 0,1,2."),
        Option(accepts="Write the list of folds as 0,1,2", shown_default="those the task requires"),
    ] = None
    mirroring: Annotated[
        bool,
        Field(description="Average over mirrored copies, along the axes the checkpoint allows."),
    ] = True
    step_size: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Distance of neighbouring windows, as a fraction of the patch.",
        ),
    ] = 0.5
    backend: Annotated[
        Backend,
        Field(description="What computes the passes."),
    ] = "auto"
    mode: Annotated[
        Mode,
        Field(description="All passes, or fewer where the label cannot be, an approximation."),
    ] = "exact"

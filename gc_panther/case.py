"""The values that flow through a run: geometry, volumes, cases, results.

Arrays are always (z, y, x). Everything named ``*_xyz`` follows SimpleITK's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.sockets import Socket

XYZ = tuple[float, float, float]

#: Largest difference of size-independent geometry (mm, or direction cosines) that still counts
#: as the same grid; PANTHER's evaluator uses this tolerance for the spacing.
GEOMETRY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient, in SimpleITK's conventions (LPS, millimetres).

    Attributes:
        size_xyz: number of voxels along x, y, z.
        spacing_xyz: distance between voxel centres, mm.
        origin_xyz: physical position of the centre of voxel (0, 0, 0), mm.
        direction: 3×3 direction cosines, row-major; column *i* is the direction of grid axis *i*.
    """

    size_xyz: tuple[int, int, int]
    spacing_xyz: XYZ
    origin_xyz: XYZ = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of an array on this grid, (z, y, x)."""
        x, y, z = self.size_xyz
        return (z, y, x)

    @property
    def spacing_zyx(self) -> XYZ:
        """Spacing in array order (z, y, x), mm."""
        x, y, z = self.spacing_xyz
        return (z, y, x)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm³."""
        return float(np.prod(self.spacing_xyz))

    def matches(self, other: Geometry, tolerance: float = GEOMETRY_TOLERANCE) -> bool:
        """Whether both grids have the same voxels in the same places."""
        return self.size_xyz == other.size_xyz and all(
            np.allclose(mine, theirs, rtol=0.0, atol=tolerance)
            for mine, theirs in (
                (self.spacing_xyz, other.spacing_xyz),
                (self.origin_xyz, other.origin_xyz),
                (self.direction, other.direction),
            )
        )


@dataclass(frozen=True)
class Volume:
    """An array and the grid it lives on.

    Attributes:
        array_zyx: voxel values, shape ``geometry.shape_zyx``.
        geometry: the grid.
    """

    array_zyx: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array_zyx.shape != self.geometry.shape_zyx:
            raise ValueError(
                f"array of shape {self.array_zyx.shape} on a grid of {self.geometry.shape_zyx}"
            )


@dataclass(frozen=True)
class Case:
    """One unit of work: the images of one patient at one time.

    Attributes:
        name: what the case is called in logs and reports (the original file's name without its
            ending, where that is known).
        images: volumes by socket slug.
        sources: the file each volume was read from, by socket slug.
    """

    name: str
    images: Mapping[str, Volume]
    sources: Mapping[str, Path] = field(default_factory=dict)

    def __getitem__(self, socket: Socket) -> Volume:
        """The image of an input socket."""
        return self.images[socket.slug]


@dataclass(frozen=True)
class Result:
    """What a predictor returns for a case.

    Attributes:
        outputs: the value of each output socket that the case's interface declares: a uint8 mask on
            the grid of the case's first image.
        details: JSON-compatible facts about how it was made (folds, combine mode, region of
            interest, …); they go into the run report.
        notes: sentences for the person who reads the result, such as a fallback that was taken;
            they go into the run report and into ``results.json``.
        warnings: sentences that a person must see before trusting the result; they go onto the
            terminal, into the run report, ``results.json``, pictures and the cohort's table. The
            session puts those about the weights and the image before the task's own.
    """

    outputs: Mapping[Socket, Volume]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def mask(self) -> Volume:
        """The only output.

        Raises:
            ValueError: there are several, or none.
        """
        (volume,) = self.outputs.values()
        return volume


@dataclass(frozen=True)
class Segmentation:
    """Deprecated: a :class:`Result` of one mask, as ``Segmenter.segment`` returned it."""

    mask: Volume
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

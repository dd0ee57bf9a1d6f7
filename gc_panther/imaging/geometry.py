"""Between voxel indices and millimetres."""

from __future__ import annotations

import numpy as np

from gc_panther.case import Geometry


def _index_to_mm(geometry: Geometry) -> np.ndarray:
    """The 3×3 matrix that turns a step in voxels (x, y, z) into one in millimetres."""
    return np.asarray(geometry.direction, float).reshape(3, 3) * np.asarray(geometry.spacing_xyz)


def physical_points(geometry: Geometry, indices_xyz: np.ndarray) -> np.ndarray:
    """Physical positions of (continuous) voxel indices.

    Args:
        geometry: the grid.
        indices_xyz: indices in (x, y, z) order, shape (…, 3); whole numbers are voxel centres.

    Returns:
        Positions in mm (LPS), shape (…, 3), float64.
    """
    steps = np.asarray(indices_xyz, float) @ _index_to_mm(geometry).T
    return steps + np.asarray(geometry.origin_xyz)


def continuous_indices(geometry: Geometry, points_mm: np.ndarray) -> np.ndarray:
    """Continuous voxel indices of physical positions, the inverse of :func:`physical_points`.

    Args:
        geometry: the grid.
        points_mm: positions in mm (LPS), shape (…, 3).

    Returns:
        Indices in (x, y, z) order, shape (…, 3), float64.
    """
    offsets = np.asarray(points_mm, float) - np.asarray(geometry.origin_xyz)
    return offsets @ np.linalg.inv(_index_to_mm(geometry)).T

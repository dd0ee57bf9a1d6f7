"""Painting structures on a voxel grid with fractional occupancy.

A structure's share of a voxel follows from its signed distance d and from how much d changes
across the voxel: f = 1/2 - d / w, clipped to [0, 1], where w is the sum over the grid's axes of
|∂d| per voxel. That is the share of a box-shaped voxel on one side of a plane, to first order, for
any orientation of the surface - so thick slices blur horizontal surfaces and leave vertical ones
sharp. The MR signal is linear in the shares, so structures are painted one over the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gc_panther.panther.phantom.fields import SmoothField
from gc_panther.panther.phantom.shapes import Box, Shape, Tube

Array = np.ndarray
Slices = tuple[slice, slice, slice]
FAR = np.float32(1e4)
#: Voxels that are computed at a time: their intermediate results stay in a core's cache.
AT_A_TIME = 2**17


def slabs(shape_zyx: Sequence[int]) -> Iterator[slice]:
    """Ranges of slices of about :data:`AT_A_TIME` voxels that together are the whole array."""
    count, rows, columns = shape_zyx
    step = max(1, AT_A_TIME // max(1, rows * columns))
    return (slice(start, start + step) for start in range(0, count, step))


@dataclass(frozen=True)
class Layer:
    """One tissue of a structure, from ``inset`` mm below the surface inwards.

    Attributes:
        tissue: name in :data:`gc_panther.panther.phantom.signal.TISSUES`.
        inset: depth below the surface where it begins, mm.
        above: if set, only where y < above (anterior, where gas collects in a supine patient).
    """

    tissue: str
    inset: float = 0.0
    above: float | None = None


@dataclass(frozen=True)
class Structure:
    """A shape with its tissues and its label.

    Attributes:
        name: for people.
        shape: where it is.
        layers: its tissues, outermost first.
        organ: organ label, or None to leave the labels that are there.
        target: PANTHER label (1 tumour, 2 pancreas, 0 background), or None to leave it.
        inside: whether it ends at the abdominal wall.
        bumps: amplitude of the irregular surface, mm.
        bump_size: size of the irregularities, mm.
        soft: extra width of the edge, mm (infiltrating margins).
        mix: how strongly fat lobules modulate the tissue, relative to ``pancreas_fat``.
    """

    name: str
    shape: Shape
    layers: tuple[Layer, ...]
    organ: int | None = 0
    target: int | None = 0
    inside: bool = True
    bumps: float = 0.0
    bump_size: float = 12.0
    soft: float = 0.0
    mix: float = 0.0


@dataclass(frozen=True)
class Space:
    """The voxel grid and the patient-specific map from it to anatomy space.

    q = scale * (R p) + u(p): p is a position relative to the image's centre along the grid's
    axes, R a small rotation, u a smooth random displacement. All in mm.

    Attributes:
        axes_zyx: positions of the slices, rows and columns, mm.
        spacing_zyx: voxel size, mm.
        matrix_xyz: ``scale * R``.
        offset_xyz: anatomy position of the image's centre, mm.
        displacement_xyz: one field a component, already scaled to mm.
    """

    axes_zyx: tuple[Array, Array, Array]
    spacing_zyx: tuple[float, float, float]
    matrix_xyz: Array
    offset_xyz: Array
    displacement_xyz: tuple[SmoothField, SmoothField, SmoothField]
    amplitude_xyz: tuple[float, float, float]

    @cached_property
    def inverse_xyz(self) -> Array:
        """Inverse of :attr:`matrix_xyz`."""
        return np.linalg.inv(self.matrix_xyz)

    def coordinates(self) -> tuple[Array, Array, Array]:
        """Anatomy coordinates (x, y, z) of all voxels, each (z, y, x) float32."""
        z, y, x = (a.astype(np.float32) for a in self.axes_zyx)
        out = []
        for row, offset, field, amplitude in zip(
            self.matrix_xyz, self.offset_xyz, self.displacement_xyz, self.amplitude_xyz, strict=True
        ):
            row = row.astype(np.float32)
            q = field.on_grid(*self.axes_zyx)
            along_x, along_y = row[0] * x, (row[1] * y)[:, None]
            along_z = (row[2] * z + np.float32(offset))[:, None, None]
            for slab in slabs(q.shape):
                part = q[slab]
                part *= np.float32(amplitude)
                part += along_x
                part += along_y
                part += along_z[slab]
            out.append(q)
        return out[0], out[1], out[2]

    def slices(self, box: Box, q_xyz: tuple[Array, Array, Array], margin: float) -> Slices | None:
        """Voxels that can hold the box: its centre is mapped back, its size is padded.

        ``q_xyz`` are :meth:`coordinates`. Beyond the image the displacement of its edge is used.
        """
        inverse = self.inverse_xyz
        centre_q = np.asarray(box.centre)
        p = inverse @ (centre_q - self.offset_xyz)
        for _ in range(4):
            index = tuple(
                min(max(round((v - a[0]) / s), 0), len(a) - 1)
                for a, v, s in zip(self.axes_zyx, p[::-1], self.spacing_zyx, strict=True)
            )
            there = np.array([a[i] for a, i in zip(self.axes_zyx, index, strict=True)])[::-1]
            p = there + inverse @ (centre_q - [q[index] for q in q_xyz])
        half = np.asarray(box.half)
        # Rotation and displacement differ between the centre and the far end.
        half = half + 0.1 * half.max() + min(0.15 * float(half.max()), 14.0) + 2.0 + margin
        out = []
        for axis, centre, h in zip(self.axes_zyx, p[::-1], half[::-1], strict=True):
            start = int(np.searchsorted(axis, centre - h))
            stop = int(np.searchsorted(axis, centre + h, side="right"))
            if stop <= start:
                return None
            out.append(slice(start, stop))
        return out[0], out[1], out[2]


def distance_in_slabs(shape: Shape, x: Array, y: Array, z: Array) -> Array:
    """What ``shape.distance`` returns for (z, y, x) arrays, a few slices at a time."""
    out = np.empty(x.shape, np.float32)
    for slab in slabs(x.shape):
        out[slab] = shape.distance(x[slab], y[slab], z[slab])
    return out


class Canvas:
    """The image under construction, its labels, and what structures need to paint themselves.

    Attributes:
        image_zyx: signal, float32.
        organs_zyx: organ labels, uint8.
        target_zyx: PANTHER labels, uint8.
    """

    def __init__(
        self,
        space: Space,
        signal: dict[str, float],
        texture: dict[str, float],
        pancreas_fat: float,
        rng: np.random.Generator,
    ) -> None:
        """Start with air.

        Args:
            space: the grid.
            signal: tissue → mean signal.
            texture: tissue → relative standard deviation of the signal within it.
            pancreas_fat: share of fat in the pancreas.
            rng: random numbers for textures and irregular surfaces.
        """
        self.space = space
        self.signal = signal
        self.texture = texture
        self.pancreas_fat = pancreas_fat
        self.q_xyz = space.coordinates()
        shape = self.q_xyz[0].shape
        self.image_zyx = np.zeros(shape, np.float32)
        self.organs_zyx = np.zeros(shape, np.uint8)
        self.target_zyx = np.zeros(shape, np.uint8)
        half = tuple(float(np.abs(a).max()) for a in space.axes_zyx)
        coarse = SmoothField.random(rng, half, (14.0, 11.0, 11.0)).on_grid(*space.axes_zyx)
        fine = SmoothField.random(rng, half, (5.0, 3.6, 3.6)).on_grid(*space.axes_zyx)
        fine *= np.float32(0.8)
        coarse *= np.float32(0.6)
        coarse += fine
        self.pattern = coarse
        self._rng = rng
        self.wall: Array | None = None
        self._reach = 1.2 * float(np.linalg.norm(space.spacing_zyx))

    def paint(self, structure: Structure) -> None:
        """Paint one structure over what is there."""
        margin = self._reach + structure.bumps * 2 + structure.soft
        found = self._distance(structure.shape, margin)
        if found is None:
            return
        where, distance = found
        if structure.bumps:
            axes = tuple(a[s] for a, s in zip(self.space.axes_zyx, where, strict=True))
            half = tuple(0.5 * float(a[-1] - a[0]) for a in axes)
            centre = tuple(0.5 * float(a[-1] + a[0]) for a in axes)
            step = (structure.bump_size,) * 3
            bumps = SmoothField.random(self._rng, half, step, centre)
            field = bumps.on_grid(*axes)
            np.clip(field, -2, 2, out=field)
            field *= np.float32(structure.bumps)
            distance += field
        if structure.inside and self.wall is not None:
            np.maximum(distance, self.wall[where] + np.float32(1.0), out=distance)
        for number, layer in enumerate(structure.layers):
            d = distance
            if layer.inset or layer.above is not None:
                d = distance + np.float32(layer.inset)
                if layer.above is not None:
                    np.maximum(d, self.q_xyz[1][where] - np.float32(layer.above), out=d)
            self._blend(where, d, layer.tissue, structure, labels=number == 0)

    def _blend(
        self, where: Slices, distance: Array, tissue: str, structure: Structure, *, labels: bool
    ) -> None:
        share = self._share(distance, structure.soft)
        image, pattern = self.image_zyx[where], self.pattern[where]
        organs, target = self.organs_zyx[where], self.target_zyx[where]
        for slab in slabs(share.shape):
            count = np.count_nonzero(share[slab])
            if not count:
                continue
            # A thin tube fills little of its box, an organ most of it: the arithmetic is the same.
            index: Any = np.nonzero(share[slab]) if 5 * count < share[slab].size else ...
            value = self._signal(tissue, structure.mix, pattern[slab][index])
            old = image[slab][index]
            image[slab][index] = old + share[slab][index] * (value - old)
            if labels:
                inside = share[slab] > 0.5
                if structure.organ is not None:
                    organs[slab][inside] = structure.organ
                if structure.target is not None:
                    target[slab][inside] = structure.target

    def _signal(self, tissue: str, mix: float, pattern: Array) -> Array:
        """A tissue's signal where the texture has these values."""
        value = np.float32(self.signal[tissue]) * (1 + np.float32(self.texture[tissue]) * pattern)
        if mix:
            lobules = np.float32(self.pancreas_fat * mix)
            contrast = np.float32(self.signal["visceral_fat"] - self.signal[tissue])
            value += lobules * np.clip(pattern, -1, 1.5) * contrast
        return value

    def _share(self, distance: Array, soft: float) -> Array:
        """Fraction of each voxel inside, float32."""
        share = (distance < 0).astype(np.float32)
        reach = self._reach + soft
        flat, flat_share = np.ascontiguousarray(distance).ravel(), share.ravel()
        for start in range(0, flat.size, AT_A_TIME):
            edge = np.flatnonzero(np.abs(flat[start : start + AT_A_TIME]) < reach) + start
            if not edge.size:
                continue
            width = np.full(edge.size, soft, np.float32)
            stride = 1
            for n in distance.shape[::-1]:
                if n > 1:
                    i = (edge // stride) % n
                    up = np.where(i < n - 1, stride, 0)
                    down = np.where(i > 0, stride, 0)
                    span = np.where((i < n - 1) & (i > 0), np.float32(0.5), np.float32(1.0))
                    width += np.abs(flat[edge + up] - flat[edge - down]) * span
                stride *= n
            np.clip(width, 0.2, reach, out=width)
            flat_share[edge] = np.clip(np.float32(0.5) - flat[edge] / width, 0, 1)
        return share

    def _distance(self, shape: Shape, margin: float) -> tuple[Slices, Array] | None:
        if not isinstance(shape, Tube):
            where = self.space.slices(shape.box(), self.q_xyz, margin)
            if where is None:
                return None
            return where, distance_in_slabs(shape, *(q[where] for q in self.q_xyz))
        # A long tube fills little of its box: every segment is evaluated in a box of its own.
        parts = [self.space.slices(b, self.q_xyz, margin) for b in shape.segment_boxes(0.0)]
        kept = [(i, p) for i, p in enumerate(parts) if p is not None]
        if not kept:
            return None
        low = [min(p[k].start for _, p in kept) for k in range(3)]
        high = [max(p[k].stop for _, p in kept) for k in range(3)]
        whole = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out = np.full([b - a for a, b in zip(low, high, strict=True)], FAR, np.float32)
        for i, part in kept:
            local = tuple(slice(s.start - a, s.stop - a) for s, a in zip(part, low, strict=True))
            d = shape.segment_distance(i, *(q[part] for q in self.q_xyz))
            np.minimum(out[local], d, out=out[local])
        return whole, out  # type: ignore[return-value]

"""From a seed to an image with its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gc_panther.case import Geometry
from gc_panther.panther.phantom.anatomy.patient import Anatomy, draw_anatomy
from gc_panther.panther.phantom.artefacts import add_rician_noise, bias_field, to_integers
from gc_panther.panther.phantom.fields import SmoothField
from gc_panther.panther.phantom.labels import PANCREAS, TUMOUR
from gc_panther.panther.phantom.render import Canvas, Space, distance_in_slabs
from gc_panther.panther.phantom.shapes import rotation_xyz
from gc_panther.panther.phantom.signal import SignalModel, draw_signals

#: Raised whenever the same seed would give other bytes.
PHANTOM_VERSION = 1


@dataclass(frozen=True)
class Protocol:
    """What one of the challenge's tasks looks like.

    Attributes:
        number: enters the random seed.
        contrast: default contrast.
        size_xyz: usual number of voxels.
        spacing_xyz: usual voxel size, mm.
        size_spread: relative spread of the size, (x and y, z).
        spacing_spread: relative spread of the in-plane spacing.
        snr: limits of the pancreas' signal over the noise of either channel.
        bias: limits of the standard deviation of the bias field's logarithm.
    """

    number: int
    contrast: str
    size_xyz: tuple[int, int, int]
    spacing_xyz: tuple[float, float, float]
    size_spread: tuple[float, float]
    spacing_spread: float
    snr: tuple[float, float]
    bias: tuple[float, float]


PROTOCOLS: dict[str, Protocol] = {
    "task1": Protocol(
        1, "t1", (318, 258, 72), (1.19, 1.19, 3.0), (0.02, 0.06), 0.03, (14.0, 26.0), (0.06, 0.16)
    ),
    "task2": Protocol(
        2, "t2", (400, 320, 100), (1.0, 1.0, 2.0), (0.02, 0.06), 0.02, (12.0, 22.0), (0.06, 0.16)
    ),
}


@dataclass(frozen=True)
class Phantom:
    """A synthetic case. Arrays are (z, y, x) in LPS order, geometry in SimpleITK's conventions.

    Attributes:
        image_zyx: stored intensities, int16.
        label_zyx: 0 background, 1 tumour, 2 pancreas; uint8.
        organs_zyx: MRSegmentator's numbering, tumour counted as pancreas (7); uint8.
        spacing_xyz: voxel size, mm.
        origin_xyz: position of the centre of voxel (0, 0, 0), mm.
        direction: nine direction cosines, row-major.
        facts: what is known about the case (JSON types only).
    """

    image_zyx: np.ndarray
    label_zyx: np.ndarray
    organs_zyx: np.ndarray
    spacing_xyz: tuple[float, float, float]
    origin_xyz: tuple[float, float, float]
    direction: tuple[float, ...]
    facts: dict[str, Any]

    @property
    def geometry(self) -> Geometry:
        """The grid of all three arrays."""
        z, y, x = self.image_zyx.shape
        return Geometry((x, y, z), self.spacing_xyz, self.origin_xyz, self.direction)


def generate_phantom(
    task: str,
    seed: int,
    *,
    case: int = 0,
    size_xyz: tuple[int, int, int] | None = None,
    spacing_xyz: tuple[float, float, float] | None = None,
    contrast: str | None = None,
    varied: bool = False,
) -> Phantom:
    """Make one synthetic case.

    Args:
        task: ``"task1"`` (T1, arterial phase) or ``"task2"`` (T2, MR-Linac).
        seed: any non-negative integer.
        case: number of the case within the seed.
        size_xyz: number of voxels; drawn around the task's usual size if None.
        spacing_xyz: voxel size in mm; drawn around the task's usual one if None.
        contrast: ``"t1"``, ``"t2"``, ``"mixed"`` (any sequence of an abdominal protocol) or
            ``"random"`` (every tissue any intensity), to train networks that don't depend on the
            contrast; the task's own if None. The anatomy of a (task, seed, case) is the same in
            every contrast.
        varied: whether size, position and turn of the patient, field of view and voxels go far
            beyond the task's protocol, to train networks that don't depend on it; ``size_xyz`` and
            ``spacing_xyz`` are then the middle of what is drawn.

    Raises:
        ValueError: unknown task or contrast.
    """
    if task not in PROTOCOLS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[task]
    root = np.random.SeedSequence([protocol.number, seed, case])
    geometry, body, warp, physics, surface, noise = map(np.random.default_rng, root.spawn(6))
    contrast = contrast or protocol.contrast

    usual = _draw_grid(protocol, geometry)
    size = size_xyz or usual[0]
    spacing = spacing_xyz or usual[1]
    extra = np.random.default_rng(root.spawn(1)[0]) if varied else None
    if extra is not None:
        size, spacing = _vary_grid(size, spacing, extra)
    origin, direction = _draw_placement(size, spacing, geometry)

    anatomy = draw_anatomy(body)
    space = _draw_space(size, spacing, anatomy, warp)
    if extra is not None:
        space = _vary_space(space, extra)
    model = draw_signals(contrast, physics)
    canvas = Canvas(space, model.signal, model.texture, model.pancreas_fat, surface)
    canvas.wall = distance_in_slabs(anatomy.wall, *canvas.q_xyz)
    for structure in anatomy.structures:
        canvas.paint(structure)

    snr = float(noise.uniform(*protocol.snr))
    if extra is not None:
        snr *= float(np.exp(extra.uniform(np.log(0.7), np.log(4.0))))
    scale = float(np.exp(noise.uniform(np.log(120), np.log(500))))
    image = canvas.image_zyx
    strength = float(noise.uniform(*protocol.bias))
    image *= bias_field(noise, *space.axes_zyx, strength)
    image = add_rician_noise(image, 1.0 / snr, noise)
    stored = to_integers(image, scale)
    label = canvas.target_zyx
    voxel = float(np.prod(spacing))
    facts = _facts(task, seed, case, anatomy, model, label, voxel, snr, scale)
    return Phantom(stored, label, canvas.organs_zyx, spacing, origin, direction, facts)


def _draw_grid(
    protocol: Protocol, rng: np.random.Generator
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    in_plane, through = rng.uniform(-1, 1, 2)
    nx, ny, nz = protocol.size_xyz
    wide = 1 + protocol.size_spread[0] * in_plane
    size = (
        round(nx * wide / 2) * 2,
        round(ny * wide / 2) * 2,
        round(nz * (1 + protocol.size_spread[1] * through)),
    )
    sx, _, sz = protocol.spacing_xyz
    zoom = float(np.round(sx * (1 + protocol.spacing_spread * rng.uniform(-1, 1)), 4))
    return size, (zoom, zoom, sz)


def _vary_grid(
    size: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Another field of view, from a thin slab to the whole abdomen, with other voxels."""
    field_mm = np.multiply(size, spacing) * (*rng.uniform(0.85, 1.1, 2), rng.uniform(0.25, 1.0))
    new = np.multiply(spacing, (*[rng.uniform(0.75, 1.25)] * 2, np.exp(rng.uniform(-0.7, 0.7))))
    new = np.round(new, 4)
    count = np.maximum(np.rint(field_mm / new), 4)
    return tuple(int(n) for n in count), tuple(float(v) for v in new)  # type: ignore[return-value]


def _vary_space(space: Space, rng: np.random.Generator) -> Space:
    """Another patient: larger or smaller, turned, moved, and bent more."""
    size = np.exp(rng.uniform(-0.15, 0.15) + 0.05 * rng.normal(0, 1, 3).clip(-2, 2))
    turn = rotation_xyz(tuple(rng.uniform(-8, 8, 3)))
    move = rng.normal(0, 1, 3).clip(-2, 2) * (8.0, 6.0, 20.0)
    bend = rng.uniform(1.0, 2.0)
    x, y, z = space.amplitude_xyz
    return replace(
        space,
        matrix_xyz=space.matrix_xyz @ turn / size[:, None],
        offset_xyz=space.offset_xyz + move,
        amplitude_xyz=(bend * x, bend * y, bend * z),
    )


def _draw_placement(
    size: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> tuple[tuple[float, float, float], tuple[float, ...]]:
    """Origin that puts the isocentre near the image's centre; at times a small tilt."""
    degrees = rng.uniform(-3, 3, 3)
    tilted = rng.random() < 0.15
    centre = rng.normal(0, 15, 3)
    matrix = rotation_xyz(tuple(degrees)) if tilted else np.eye(3)
    half = 0.5 * (np.asarray(size) - 1) * np.asarray(spacing)
    origin = np.round(centre - matrix @ half, 3)
    return tuple(float(v) for v in origin), tuple(float(v) for v in matrix.ravel())  # type: ignore[return-value]


def _draw_space(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    anatomy: Anatomy,
    rng: np.random.Generator,
) -> Space:
    axes = tuple(
        (np.arange(n) - 0.5 * (n - 1)) * s for n, s in zip(size[::-1], spacing[::-1], strict=True)
    )
    # The field's extent is fixed, so that the anatomy doesn't depend on the grid.
    fields = tuple(
        SmoothField.random(rng, (200.0, 200.0, 240.0), (62.0, 55.0, 58.0)) for _ in "xyz"
    )
    scale = np.exp(rng.normal(0, 0.025, 3).clip(-0.05, 0.05))
    rotation = rotation_xyz(tuple(rng.uniform(-4, 4, 3)))
    offset = rng.normal(0, 1, 3).clip(-2, 2) * (3.0, 2.0, 8.0) + (0.0, 0.0, -2.0)
    return Space(
        axes,  # type: ignore[arg-type]
        spacing[::-1],
        rotation / scale[:, None],
        offset,
        fields,  # type: ignore[arg-type]
        (4.0, 4.0, 5.0),
    )


def _facts(
    task: str,
    seed: int,
    case: int,
    anatomy: Anatomy,
    model: SignalModel,
    label: np.ndarray,
    voxel_mm3: float,
    snr: float,
    scale: float,
) -> dict[str, Any]:
    tumour = int((label == TUMOUR).sum())
    pancreas = int((label == PANCREAS).sum())
    a = model.acquisition
    return {
        "task": task,
        "seed": seed,
        "case": case,
        "contrast": a.contrast,
        "tumour_position": anatomy.tumour.position,
        "tumour_nominal_diameter_mm": round(anatomy.tumour.diameter_mm, 2),
        "tumour_diameter_mm": round(float((6 * tumour * voxel_mm3 / np.pi) ** (1 / 3)), 2),
        "tumour_volume_mm3": round(tumour * voxel_mm3, 1),
        "pancreas_volume_mm3": round(pancreas * voxel_mm3, 1),
        "tumour_to_pancreas_signal": round(model.signal["tumour"], 3),
        "cnr": round((1 - model.signal["tumour"]) * snr, 2),
        "snr": round(snr, 2),
        "pancreas_fat": round(model.pancreas_fat, 3),
        "intensity_scale": round(scale, 2),
        "field_t": (1.5, 3.0)[a.field],
        "tr_ms": round(a.tr_ms, 2),
        "te_ms": round(a.te_ms, 2),
        "flip_deg": round(a.flip_deg, 2),
    }

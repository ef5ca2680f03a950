"""Appearance of the whole-heart phantom: the thorax around the heart and what a CT or MR scanner makes of it.

Tissue is painted back to front; each shape covers a voxel by the share that its field says (partial volume), so no
finer grid is needed. Values: Hounsfield units of arterial-phase cardiac CT, arbitrary units of bright-blood MR.
`difficulty` in [0, 1] drives noise, blur, contrast and artefacts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.data.phantom.shapes import Array, Heart, ellipsoid, tube

MIDLINE_MM = 40.0
"""Where the patient's midline lies right of the left ventricle's centre."""


@dataclass(frozen=True)
class Tissue:
    """Mean signal of every tissue."""

    lung: float
    fat: float
    muscle: float
    bone: float
    liver: float
    gas: float
    myocardium: float
    left_blood: float
    right_blood: float
    vein_blood: float


def ct_tissue(rng: np.random.Generator, difficulty: float) -> Tissue:
    """Arterial phase; hard cases are poorly timed: weak enhancement and a right heart as dark as the wall."""
    left = rng.uniform(330, 450) * (1 - 0.5 * difficulty)
    wash = rng.uniform(0.35, 0.9) - 0.35 * difficulty * rng.random()
    wall = 75 + 0.13 * left + rng.normal(0, 6)
    right = wall + max(0.06, wash) * (left - wall)
    cava = right + rng.choice([0.0, 350.0]) * rng.random()
    return Tissue(-840, -95, 55, 420, 85 + rng.normal(0, 10), -950, wall, left, right, cava)


def mr_tissue(rng: np.random.Generator, difficulty: float) -> Tissue:
    """Bright blood (balanced steady state); hard cases have less contrast between blood and wall."""
    blood = rng.uniform(480, 620)
    wall = blood * (rng.uniform(0.33, 0.45) + 0.22 * difficulty)
    right = blood * (rng.uniform(0.85, 1.0) - 0.15 * difficulty)
    fat = blood * rng.choice([0.3, 1.05])
    return Tissue(45, fat, wall * 0.85, 60, wall * 1.1, 15, wall, blood, right, right * rng.uniform(0.85, 1.1))


class Canvas:
    """An image on which shapes are painted one over the other.

    Attributes:
        values: (N,) float32.
        spacing: mm; the border of a shape is spread over one voxel.
    """

    def __init__(self, n: int, spacing: float, background: float) -> None:
        self.values = np.full(n, background, dtype=np.float32)
        self.spacing = np.float32(spacing)

    def paint(self, shape: Array, value: float | Array) -> None:
        """Cover with `value` where the field `shape` (N,) is negative."""
        share = np.clip(np.float32(0.5) - shape / self.spacing, 0, 1)
        touched = np.flatnonzero(share)
        amount = share[touched]
        new = value[touched] if isinstance(value, np.ndarray) else np.float32(value)
        self.values[touched] += amount * (new - self.values[touched])


def paint_scene(
    thorax: Array, points: Array, heart: Heart, tissue: Tissue, spacing: float, rng: np.random.Generator
) -> Array:
    """Signal (N,) without blur and noise.

    Args:
        thorax: thorax coordinates (3, N) mm.
        points: heart coordinates (3, N) mm.
        heart: fields at `points`.
    """
    canvas = Canvas(thorax.shape[1], spacing, tissue.lung)
    _paint_lungs(canvas, thorax, tissue, rng)
    descending = _paint_mediastinum(canvas, thorax, tissue, rng)
    _paint_heart(canvas, points, heart, descending, tissue, rng)
    _paint_abdomen(canvas, thorax, heart, tissue, rng)
    _paint_chest_wall(canvas, thorax, tissue, rng)
    return canvas.values


def _paint_lungs(canvas: Canvas, thorax: Array, tissue: Tissue, rng: np.random.Generator) -> None:
    for _ in range(16):
        side = rng.choice([-1.0, 1.0])
        start = np.array([MIDLINE_MM + side * 25, rng.uniform(-50, -15), rng.uniform(20, 65)])
        end = start + np.array([side * rng.uniform(40, 80), rng.uniform(-30, 50), rng.uniform(-60, 50)])
        canvas.paint(tube(thorax, [start, end], [rng.uniform(2.5, 4.5), 1.2], 1)[0], tissue.right_blood)


def _paint_mediastinum(canvas: Canvas, thorax: Array, tissue: Tissue, rng: np.random.Generator) -> Array:
    """Fat, oesophagus, trachea and the descending aorta, whose field is returned."""
    middle = float(rng.normal(0, 2))
    fat = np.array([[42 + middle, -38, -90], [42, -30, 60], [40, 0, 130]])
    canvas.paint(tube(thorax, fat, [26, 28, 38], 1)[0], tissue.fat)
    canvas.paint(ellipsoid(thorax, [40, 45, 40], [16, 26, 60]), tissue.fat)
    canvas.paint(tube(thorax, [[30, -64, -90], [34, -58, 130]], [7, 7], 1)[0], tissue.muscle)
    x = MIDLINE_MM - 24 + rng.normal(0, 3)
    descending = [[x + 6, -72, -100], [x, -70, 0], [x - 2, -68, 60], [x + 4, -60, 84]]
    wall = tube(thorax, descending, [12.5, 13, 13, 13.5])[0]
    canvas.paint(wall, tissue.muscle)
    canvas.paint(wall + 1.5, tissue.left_blood)
    trachea = tube(thorax, [[44, -38, 90], [44, -34, 140]], [9, 9], 1)[0]
    canvas.paint(trachea - 1.5, tissue.muscle)
    canvas.paint(trachea, tissue.gas)
    return wall + np.float32(1.5)


def _paint_heart(
    canvas: Canvas, points: Array, heart: Heart, descending: Array, tissue: Tissue, rng: np.random.Generator
) -> None:
    f = heart.fields
    right = np.minimum(f["rv"], f["ra"])
    vessels = np.minimum(np.minimum(f["ao"], f["pa"]), f["cavae"])
    shell = np.minimum(np.minimum(f["epi"], right), np.minimum(f["la"], vessels + 3))
    wave = rng.normal(0, 0.05, 3).astype(np.float32) @ points
    # the arch runs into the descending aorta: nothing of the heart's coat lies inside that
    outside = np.float32(1.5) - descending
    canvas.paint(np.maximum(shell - float(rng.uniform(3.5, 7)) - 3 * np.sin(wave), outside), tissue.fat)
    canvas.paint(np.minimum(right - 3.0, f["la"] - 2.0), tissue.myocardium)
    canvas.paint(np.maximum(np.minimum(vessels, f["veins"]) - 1.5, outside), tissue.muscle)
    canvas.paint(f["veins"], tissue.left_blood)
    canvas.paint(f["cavae"], tissue.vein_blood)
    # contrast from the upper vena cava mixes with blood without contrast in the atrium
    mixed = np.clip((points[2] - 10) / 40, 0, 1) * np.float32(0.6 * (tissue.vein_blood - tissue.right_blood))
    canvas.paint(f["ra"], tissue.right_blood + mixed)
    canvas.paint(f["rv"], tissue.right_blood)
    canvas.paint(f["pa"], tissue.right_blood)
    canvas.paint(f["epi"], tissue.myocardium)
    canvas.paint(np.maximum(f["la"] - 1.5, -f["ra"]), tissue.myocardium)
    canvas.paint(f["la"], tissue.left_blood)
    canvas.paint(np.maximum(f["ao"] - 1.2, -descending), tissue.muscle)
    canvas.paint(f["lv"], tissue.left_blood)
    canvas.paint(f["ao"], tissue.left_blood)
    canvas.paint(f["papillary"], tissue.myocardium)


def _paint_abdomen(canvas: Canvas, thorax: Array, heart: Heart, tissue: Tissue, rng: np.random.Generator) -> None:
    rest = np.minimum(heart.fields["epi"], np.minimum(heart.fields["rv"], heart.fields["ra"])) - 6
    dome = rng.normal(0, 4)
    for centre, semi, value in (
        ([85, 0, -88 + dome], [72, 85, 52], tissue.liver),
        ([-15, -5, -98 + dome], [62, 75, 48], tissue.muscle),
    ):
        shape = np.maximum(ellipsoid(thorax, centre, semi), -rest)
        shape = np.maximum(shape, -(heart.fields["cavae"] - 1))
        canvas.paint(shape, value)
    stomach = tissue.gas if rng.random() < 0.6 else tissue.muscle
    canvas.paint(ellipsoid(thorax, [-25, 10, -80 + dome], [24, 22, 16]), stomach)


def _paint_chest_wall(canvas: Canvas, thorax: Array, tissue: Tissue, rng: np.random.Generator) -> None:
    x, y, z = thorax
    wide, deep = np.float32(118 + rng.normal(0, 4)), np.float32(82 + rng.normal(0, 3))
    level = np.sqrt(((x - MIDLINE_MM) / wide) ** 2 + ((y + 8) / deep) ** 2)
    wall = (1 - level) * deep
    canvas.paint(wall, tissue.muscle)
    canvas.paint(wall + 16, tissue.fat)
    drop = z + 0.5 * y + np.float32(rng.uniform(0, 26))
    rib = np.abs(np.mod(drop, 26) - 13) - 5
    canvas.paint(np.maximum(rib, np.abs(wall + 6) - 4), tissue.bone)
    canvas.paint(np.maximum(rib + 1.5, np.abs(wall + 6) - 2.5), 0.45 * tissue.bone)
    canvas.paint(ellipsoid(thorax, [MIDLINE_MM, float(deep) - 13, 20], [17, 6, 90]), 0.5 * tissue.bone)
    spine = tube(thorax, [[MIDLINE_MM, -94, -110], [MIDLINE_MM, -92, 140]], [21, 18], 1)[0]
    disc = np.abs(np.mod(z + 7, 28) - 14) - 4
    canvas.paint(spine, tissue.bone)
    canvas.paint(spine + 2, 0.55 * tissue.bone)
    canvas.paint(np.maximum(spine, disc), 1.6 * tissue.muscle)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: float, length_mm: float) -> Array:
    """Smooth noise (D, H, W) of about unit variance and correlation length `length_mm`."""
    coarse = [max(4, int(np.ceil(n * spacing / length_mm)) + 3) for n in shape]
    field = rng.normal(size=coarse).astype(np.float32)
    zoom = [n / c for n, c in zip(shape, coarse, strict=True)]
    smooth = ndimage.zoom(field, zoom, order=2, mode="nearest", grid_mode=True)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), dtype=np.float32)


def acquire_ct(
    signal: Array, world: Array, spacing: float, difficulty: float, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Scanner blur, motion of the beating heart, streaks from dense contrast, correlated noise; (D, H, W) in HU."""
    image = _move(signal, spacing, difficulty, rng)
    image = ndimage.gaussian_filter(image, (0.45 + 0.35 * difficulty) * max(1.0, 1.2 / spacing))
    if rng.random() < 0.25 + 0.4 * difficulty:
        image += _streaks(world, rng, 90 * (0.3 + difficulty)).reshape(image.shape)
    noise = ndimage.gaussian_filter(rng.normal(size=image.shape).astype(np.float32), 0.6)
    image += noise / noise.std() * np.float32(12 + 55 * difficulty**1.5)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _move(signal: Array, spacing: float, difficulty: float, rng: np.random.Generator) -> Array:
    amount = rng.uniform(0, 4.5) * difficulty / spacing
    direction = rng.normal(size=3)
    shift = amount * direction / np.linalg.norm(direction)
    if amount < 0.3:
        return signal.copy()
    ghost = ndimage.shift(signal, shift, order=1, mode="nearest")
    return np.asarray(0.55 * signal + 0.45 * ghost, dtype=np.float32)


def _streaks(world: Array, rng: np.random.Generator, strength: float) -> Array:
    """Bright and dark rays in the axial plane from the superior vena cava or a pacing lead."""
    x, y, z = world - np.asarray([rng.uniform(20, 45), rng.uniform(-15, 15), rng.uniform(0, 40)], np.float32)[:, None]
    radius = np.sqrt(x * x + y * y) + 4
    angle = np.arctan2(y, x)
    rays = np.zeros_like(angle)
    for k in rng.integers(3, 15, 5):
        rays += np.cos(k * angle + np.float32(rng.uniform(0, 6.3)))
    return np.asarray(strength * rays / 2.5 * np.exp(-radius / 38 - (z / 32) ** 2), dtype=np.float32)


def acquire_mr(signal: Array, spacing: float, difficulty: float, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Coil shading (bias field), respiratory ghost along one axis, blur, Rician noise; (D, H, W) int16."""
    shape = signal.shape
    image = _move(signal, spacing, 0.8 * difficulty, rng)
    image = ndimage.gaussian_filter(image, (0.45 + 0.4 * difficulty) * max(1.0, 1.2 / spacing))
    axis, share = int(rng.integers(3)), np.float32(0.12 * difficulty * rng.random())
    image = (1 - share) * image + share * np.roll(image, shape[axis] // int(rng.integers(3, 7)), axis)
    image *= 1 + np.float32(0.05) * smooth_noise(rng, shape, spacing, 12.0)
    bias = smooth_noise(rng, shape, spacing, 90.0)
    image *= np.exp(np.float32(0.12 + 0.22 * difficulty) * bias)
    sd = np.float32(14 + 50 * difficulty**1.5)
    real, imaginary = (rng.normal(size=shape).astype(np.float32) * sd for _ in range(2))
    image = np.sqrt((image + real) ** 2 + imaginary**2) * np.float32(rng.uniform(0.6, 1.8))
    return np.clip(np.rint(image), 0, 32767).astype(np.int16)

"""Geometry of the whole-heart phantom: implicit shapes, one subject's measures, and the fields of every structure.

All shapes live in *heart coordinates*: millimetres along patient Right, Anterior, Superior (RAS) from the centre of the
left ventricle. A shape is a field that is negative inside and about the distance to its border (mm) near it, so that
coverage of a voxel (partial volume) follows from the field without a finer grid.

Layout of the chambers: positions and axes were drawn by hand from general anatomy (long axis of the left ventricle
pointing left, anterior and inferior; right ventricle anterior and right; atria behind and above; pulmonary trunk
crossing in front of the aortic root). Ellipsoid distance: first-order estimate f / |grad f|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

Array = npt.NDArray[np.float32]

FAR_MM = 14.0
DISEASES = ("dilated_lv", "thick_wall", "large_la", "pulmonary_hypertension", "dilated_aorta")

_APEX_TO_BASE = np.array([0.61, -0.61, 0.51])
_TO_RV = np.array([0.65, 0.75, 0.12])


def _lv_axes() -> npt.NDArray[np.float64]:
    base = _APEX_TO_BASE / np.linalg.norm(_APEX_TO_BASE)
    right = _TO_RV - base * (_TO_RV @ base)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(base, right), base])


LV_AXES = _lv_axes()
"""Rows: towards the right ventricle, towards the outflow tracts (left and up), from apex to base."""


@dataclass(frozen=True)
class Subject:
    """Measures of one subject (mm) and the pose of the heart in the field of view."""

    lv_radius: float
    lv_length: float
    wall: float
    rv: float
    la: float
    ra: float
    ao_radius: float
    pa_radius: float
    rotation: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    waves: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64]
    amplitudes: npt.NDArray[np.float64]
    jitter: npt.NDArray[np.float64]
    ao_cut: float
    pa_cut: float
    diseases: tuple[str, ...] = ()


def draw_subject(rng: np.random.Generator, diseases: Sequence[str] | None = None) -> Subject:
    """Draw one subject; `diseases` forces the findings, None draws them (about a third of the subjects are healthy)."""
    male = rng.random() < 0.5
    common = _bounded(rng)
    own = [0.6 * common + 0.8 * _bounded(rng) for _ in range(8)]
    found = tuple(d for d, p in zip(DISEASES, rng.random(len(DISEASES)), strict=True) if p < 0.18)
    grade = rng.uniform(0.6, 1.0, len(DISEASES))
    found = tuple(diseases) if diseases is not None else found
    size = (1.04 if male else 0.95) * (1 + 0.02 * common)
    ill = {d: (g if d in found else 0.0) for d, g in zip(DISEASES, grade, strict=True)}
    return Subject(
        lv_radius=size * (26.4 + 0.9 * own[0]) * (1 + 0.26 * ill["dilated_lv"]),
        lv_length=size * (48.5 + 1.8 * own[1]) * (1 + 0.08 * ill["dilated_lv"]),
        wall=size * (7.2 + 0.6 * own[2]) * (1 + 0.8 * ill["thick_wall"]),
        rv=size * (1 + 0.04 * own[3]) * (1 + 0.16 * ill["pulmonary_hypertension"]),
        la=size * (1 + 0.06 * own[4]) * (1 + 0.32 * ill["large_la"]),
        ra=size * (1 + 0.06 * own[5]) * (1 + 0.12 * ill["pulmonary_hypertension"]),
        ao_radius=size * (15.2 + 0.8 * own[6]) * (1 + 0.3 * ill["dilated_aorta"]),
        pa_radius=size * (12.4 + 0.7 * own[7]) * (1 + 0.3 * ill["pulmonary_hypertension"]),
        rotation=_rotation(rng.normal(0, [5, 5, 7]).clip(-14, 14)),
        offset=rng.uniform(-7, 7, 3),
        waves=rng.normal(0, 1, (4, 3)) * (2 * np.pi / 160),
        phases=rng.uniform(0, 2 * np.pi, 4),
        amplitudes=rng.normal(0, 1.1, (4, 3)),
        jitter=rng.normal(0, 1.5, (8, 3)).clip(-3, 3),
        ao_cut=rng.uniform(50, 68),
        pa_cut=rng.uniform(52, 70),
        diseases=found,
    )


def _bounded(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(), -1.6, 1.6))


def _rotation(degrees: npt.ArrayLike) -> npt.NDArray[np.float64]:
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)


def to_heart(world: Array, subject: Subject) -> tuple[Array, Array]:
    """World points (3, N) -> (thorax, heart) coordinates (3, N).

    The smooth warp bends both; the rotation about the heart's centre turns the heart only.
    """
    points = world + np.asarray(HEART_CENTRE + subject.offset, dtype=np.float32)[:, None]
    bent = points.copy()
    for wave, phase, amplitude in zip(subject.waves, subject.phases, subject.amplitudes, strict=True):
        swing = np.sin(wave.astype(np.float32) @ points + np.float32(phase))
        bent += amplitude.astype(np.float32)[:, None] * swing
    centre = HEART_CENTRE.astype(np.float32)[:, None]
    return bent, subject.rotation.astype(np.float32) @ (bent - centre) + centre


HEART_CENTRE = np.array([34.0, -8.0, 20.0])
"""Centre of the whole heart in heart coordinates; lies at the centre of the field of view."""


def ellipsoid(
    points: Array, centre: npt.ArrayLike, semi_axes: npt.ArrayLike, axes: npt.ArrayLike | None = None
) -> Array:
    """Field of an ellipsoid at points (3, N); rows of `axes` are its directions (default R, A, S)."""
    centre = np.asarray(centre, dtype=np.float64)
    semi = np.asarray(semi_axes, dtype=np.float32)[:, None]
    reach = float(np.max(semi)) + FAR_MM
    near = _near(points, centre - reach, centre + reach)
    local = points[:, near] - centre.astype(np.float32)[:, None]
    if axes is not None:
        local = np.asarray(axes, dtype=np.float32) @ local
    scaled = local / semi
    level = np.sqrt((scaled * scaled).sum(0))
    scaled /= semi
    slope = np.sqrt((scaled * scaled).sum(0)) + np.float32(1e-6)
    return _place(points, near, level * (level - 1) / slope)


def tube(points: Array, nodes: npt.ArrayLike, radii: npt.ArrayLike, pieces: int = 3) -> tuple[Array, Array]:
    """Field of a tapered tube along a spline through `nodes` (M, 3), and the length (mm) along it of the nearest."""
    nodes, radii = np.asarray(nodes, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    fine = np.interp(np.linspace(0, len(knots) - 1, pieces * (len(knots) - 1) + 1), np.arange(len(knots)), knots)
    curved = len(knots) > 2
    path = CubicSpline(knots, nodes)(fine) if curved else np.stack([np.interp(fine, knots, c) for c in nodes.T], 1)
    radius = np.interp(fine, knots, radii)
    reach = radius.max() + FAR_MM
    near = _near(points, path.min(0) - reach, path.max(0) + reach)
    local = points[:, near]
    best = np.full(local.shape[1], np.inf, dtype=np.float32)
    length = np.zeros_like(best)
    start = 0.0
    for a, b, r0, r1 in zip(path[:-1], path[1:], radius[:-1], radius[1:], strict=True):
        span = float(np.linalg.norm(b - a))
        direction = ((b - a) / span).astype(np.float32)
        offset = local - a.astype(np.float32)[:, None]
        along = np.clip(direction @ offset, 0, np.float32(span))
        offset -= direction[:, None] * along
        distance = np.sqrt((offset * offset).sum(0)) - np.float32(r0) - along * np.float32((r1 - r0) / span)
        closer = distance < best
        best = np.where(closer, distance, best)
        length = np.where(closer, along + np.float32(start), length)
        start += span
    return _place(points, near, best), _place(points, near, length)


def _near(points: Array, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    inside = (points[0] > low[0]) & (points[0] < high[0])
    for axis in (1, 2):
        inside &= (points[axis] > low[axis]) & (points[axis] < high[axis])
    return np.flatnonzero(inside)


def _place(points: Array, near: npt.NDArray[np.intp], values: Array) -> Array:
    result = np.full(points.shape[1], FAR_MM, dtype=np.float32)
    result[near] = values
    return result


def smooth_min(a: Array, b: Array, blend: float) -> Array:
    """Union of two fields, rounded over `blend` mm (quadratic polynomial blend)."""
    h = np.maximum(np.float32(blend) - np.abs(a - b), 0) / np.float32(blend)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(blend / 4), dtype=np.float32)


@dataclass
class Heart:
    """Fields (N,) by name, and the length along the great vessels at which the true structures end."""

    fields: dict[str, Array] = field(default_factory=dict)
    ao_length: Array = field(default_factory=lambda: np.empty(0, np.float32))
    pa_length: Array = field(default_factory=lambda: np.empty(0, np.float32))


def build_heart(points: Array, subject: Subject) -> Heart:
    """Evaluate every cardiac field at heart coordinates (3, N).

    Fields: lv, epi (outer surface of the left ventricular wall), rv, la, veins (of the lungs), ra, cavae, ao, pa,
    papillary. ao and pa go on beyond the annotated part.
    """
    s, f = subject, {}
    along = LV_AXES[2].astype(np.float32) @ points
    base = np.float32(_base(s))
    cavity = ellipsoid(points, (0, 0, 0), (s.lv_radius, s.lv_radius, s.lv_length), LV_AXES)
    f["lv"] = _both(cavity, along - base, 4.0)
    semi = (s.lv_radius + s.wall, s.lv_radius + s.wall, s.lv_length + 0.8 * s.wall)
    f["epi"] = _both(ellipsoid(points, (0, 0, 0), semi, LV_AXES), along - base - 4, 5.0)
    f["papillary"] = np.minimum(*(_papillary(points, s, side) for side in (-1, 1)))
    f["la"], f["veins"] = _left_atrium(points, s)
    f["ao"], ao_length = _aorta(points, s)
    beyond = _side(points, _pulmonary_valve(s), _PULMONARY_FLOW)
    pulmonary, pa_length = _pulmonary_artery(points, s)
    f["pa"] = np.maximum(pulmonary, -beyond)
    f["ra"], f["rv"], f["cavae"] = _right_heart(points, s, along, beyond)
    return Heart(f, ao_length, pa_length)


_PULMONARY_FLOW = np.array([0.13, -0.7, 0.7])


def _base(s: Subject) -> float:
    """Height of the mitral and aortic plane along the long axis."""
    return 0.69 * s.lv_length


def _lv(*local: float) -> npt.NDArray[np.float64]:
    """A point given along the rows of LV_AXES, in RAS."""
    return np.asarray(np.array(local) @ LV_AXES)


def _route(start: npt.NDArray[np.float64], *steps: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """`start`, then the points at `steps` from it."""
    return np.vstack([start, start + np.array(steps)])


def _both(a: Array, b: Array, blend: float) -> Array:
    """Intersection of two fields, rounded over `blend` mm."""
    return -smooth_min(-a, -b, blend)


def _side(points: Array, origin: npt.NDArray[np.float64], direction: npt.NDArray[np.float64]) -> Array:
    """Signed distance (N,) to a plane; positive on the side that `direction` points to."""
    normal = direction / np.linalg.norm(direction)
    return np.asarray(normal.astype(np.float32) @ points - np.float32(normal @ origin), dtype=np.float32)


def _papillary(points: Array, s: Subject, side: int) -> Array:
    centre = _lv(-0.45 * s.lv_radius, 0.55 * side * s.lv_radius, -0.1 * s.lv_length)
    return ellipsoid(points, centre, (3.8, 3.8, 12.0), LV_AXES)


def _left_atrium(points: Array, s: Subject) -> tuple[Array, Array]:
    mitral = _lv(-0.18 * s.lv_radius, -0.22 * s.lv_radius, _base(s) + 1)
    centre = mitral + np.array([21.0, -15.0, 17.0]) * s.la + s.jitter[0]
    body = ellipsoid(points, centre, np.array([27.0, 19.5, 26.0]) * s.la)
    funnel, _ = tube(points, [mitral, centre], [0.56 * s.lv_radius, 15 * s.la], 1)
    atrium = smooth_min(body, funnel, 8.0)
    left = centre + np.array([-23.0, 6.0, 8.0]) * s.la
    appendage, _ = tube(points, _route(left, (-9, 12, 4), (-12, 22, 2)), [8.0, 7.0, 4.0], 2)
    atrium = smooth_min(atrium, appendage, 5.0)
    veins = np.full_like(atrium, FAR_MM)
    for x, z, r in ((-1, 1, 6.5), (-1, -1, 6.0), (1, 1, 7.0), (1, -1, 6.5)):
        ostium = centre + np.array([17.0 * x, -9.0, 10.0 * z - 1]) * s.la
        ends = _route(ostium, (16 * x, -8, 4 * z), (48 * x, -18, 14 * z))
        veins = np.minimum(veins, tube(points, ends, [r + 1.5, r, r - 1.5], 2)[0])
    # the label takes in the vein's first millimetres: the part inside an enlarged atrium
    collar = np.maximum(veins, body - 5)
    return smooth_min(atrium, collar, 4.0), veins


def _aorta(points: Array, s: Subject) -> tuple[Array, Array]:
    r = s.ao_radius
    valve = _lv(0.5 * s.lv_radius, 0.42 * s.lv_radius, _base(s) - 1)
    root = valve + np.array([6, 2, 10])
    rise = root + np.array([9, 4, 18]) + s.jitter[1]
    arch = _route(rise, (2, -2, 22), (-10, -22, 36), (-28, -50, 34), (-38, -68, 10))
    return tube(points, np.vstack([valve, root, arch]), r * np.array([0.8, 1.13, 1, 0.98, 0.9, 0.82, 0.78]))


def _pulmonary_artery(points: Array, s: Subject) -> tuple[Array, Array]:
    r = s.pa_radius
    valve = _pulmonary_valve(s)
    fork = valve + np.array([10, -27, 19]) + s.jitter[2]
    stem = np.vstack([_route(valve - [0, 2, 6], (0, 2, 6), (2, -9, 17)), fork])
    trunk, length = tube(points, stem, [0.95 * r, r, r, r])
    left, left_length = tube(points, _route(fork, (-16, -14, 3), (-38, -26, 0)), r * np.array([0.85, 0.75, 0.6]))
    right, right_length = tube(points, _route(fork, (24, -9, -4), (56, -12, -10)), r * np.array([0.85, 0.75, 0.65]))
    branches = np.minimum(left, right)
    stem_length = np.float32(np.linalg.norm(np.diff(stem, axis=0), axis=1).sum())
    branch_length = np.where(left < right, left_length, right_length) + stem_length
    return smooth_min(trunk, branches, 4.0), np.where(trunk < branches, length, branch_length)


def _pulmonary_valve(s: Subject) -> npt.NDArray[np.float64]:
    reach = s.lv_radius + s.wall
    return _lv(0.62 * reach, 1.28 * reach, _base(s) - 2) + s.jitter[3] + _yield_to_aorta(s, (-0.8, 0.7, 0.2))


def _yield_to_aorta(s: Subject, direction: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """How far a neighbour of the aorta moves aside for a wide one."""
    return np.asarray(max(0.0, s.ao_radius - 15) * np.array(direction))


def _right_heart(points: Array, s: Subject, along: Array, beyond: Array) -> tuple[Array, Array, Array]:
    """Right atrium, right ventricle and venae cavae; the tricuspid plane parts the first two."""
    reach = s.lv_radius + s.wall
    centre = _lv(1.48 * reach, -20, 0.97 * s.lv_length) + s.jitter[4] + _yield_to_aorta(s, (0.7, 0.2, 0))
    inlet = _lv(1.2 * reach, -12, 0.15 * s.lv_length)
    plane = _side(points, 0.48 * centre + 0.52 * inlet, centre - inlet)
    funnel, _ = tube(points, [inlet, centre], [19 * s.rv, 17 * s.ra], 1)
    atrium, cavae = _right_atrium(points, s, centre)
    atrium = np.maximum(smooth_min(atrium, funnel, 8.0), -plane)
    ventricle = smooth_min(_right_ventricle(points, s, along, beyond), funnel, 8.0)
    return atrium, np.maximum(ventricle, plane), cavae


def _right_atrium(points: Array, s: Subject, centre: npt.NDArray[np.float64]) -> tuple[Array, Array]:
    body = ellipsoid(points, centre, np.array([21.0, 23.0, 33.0]) * s.ra, _rotation([-28, 0, 10]))
    top, bottom = centre + np.array([-2, -10, 22]) * s.ra, centre + np.array([-2, -12, -26]) * s.ra
    upper, _ = tube(points, _route(top, (-3, -6, 30), (-4, -6, 80)), [9, 9.5, 9.5], 2)
    lower, _ = tube(points, _route(bottom, (-3, -6, -20), (-8, -10, -70)), [11, 11.5, 12], 2)
    ear, _ = tube(points, centre + np.array([[0, 12, 18], [-10, 26, 26]]), [11, 6], 1)
    return smooth_min(body, ear, 6.0), np.minimum(upper, lower)


def _right_ventricle(points: Array, s: Subject, along: Array, beyond: Array) -> Array:
    reach = s.lv_radius + s.wall
    centre = _lv(0.8 * reach, -5, -2) + 0.5 * s.jitter[5]
    body = ellipsoid(points, centre, np.array([32.0, 37.0, 45.0]) * s.rv, LV_AXES)
    body = _both(body, along - np.float32(0.55 * s.lv_length), 6.0)
    valve = _pulmonary_valve(s)
    outlet = [
        _lv(1.25 * reach, 8, -4),
        _lv(1.08 * reach, 0.85 * reach, 0.3 * s.lv_length),
        valve + np.array([0, 1, -4]),
    ]
    outflow, _ = tube(points, outlet, [18 * s.rv, 15 * s.rv, s.pa_radius + 0.5])
    return np.maximum(smooth_min(body, outflow, 8.0), beyond)

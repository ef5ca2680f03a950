"""One synthetic whole heart: seven structures in right topology, as a CT or MR scanner and an annotator show them.

It lets every command run without registration or download. It is not data: nothing measured on it is a claim about
patients. Healthy hearts lie inside these adult ranges (mean ± 2 SD of both sexes together; tested):

    left ventricle   83-218 ml   end-diastolic 160 ± 29 (men), 135 ± 26 (women); Hudsmith et al., J Cardiovasc Magn
                                 Reson 2005;7:775-782
    right ventricle  78-256 ml   end-diastolic 190 ± 33, 148 ± 35; the same
    left atrium      47-163 ml   largest volume 103 ± 30, 89 ± 21; the same
    wall             53-168 ml   mass 134 ± 21 g, 98 ± 21 g at 1.05 g/ml; Kawel-Boehm et al., JCMR 2015;17:29
    pulmonary trunk  19.5-30.7 mm across, 25.1 ± 2.8; Truong et al., Circ Cardiovasc Imaging 2012;5:147-154
    ascending aorta  24.9-41.9 mm across, 34.1 ± 3.9 (men), 31.9 ± 3.5 (women); Rogers et al., Am J Cardiol
                                 2013;111:1510-1516

The reference label is not the noise-free truth: borders wander by about half a millimetre, and the aorta and the
pulmonary artery end at levels that differ between annotators, as in MMWHS (Zhuang & Shen, Med Image Anal
2016;31:77-87).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.data.case import Modality
from whqa.data.phantom.imaging import acquire_ct, acquire_mr, ct_tissue, mr_tissue, paint_scene, smooth_noise
from whqa.data.phantom.shapes import DISEASES, Array, Heart, Subject, build_heart, draw_subject, to_heart
from whqa.errors import InputError
from whqa.structures import MMWHS

FIELD_OF_VIEW_MM = 168.0
_ORIENTATIONS: dict[Modality, tuple[str, ...]] = {"ct": ("LPS",), "mr": ("LPS", "AIL", "RAS", "PIR", "LIP")}


@dataclass(frozen=True)
class Phantom:
    """One synthetic case.

    Attributes:
        image: (D, H, W) int16; HU for CT, arbitrary units for MR.
        label: (D, H, W) int16, MMWHS values, as an annotator draws them.
        truth: (D, H, W) int16, MMWHS values, without annotator noise.
        affine: (4, 4), voxel -> RAS mm.
        diseases: findings, of `whqa.data.phantom.shapes.DISEASES`.
        difficulty: 0 (clean image) to 1.
    """

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.int16]
    truth: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    diseases: tuple[str, ...]
    difficulty: float


def make_phantom(
    seed: int, index: int, modality: Modality, spacing: float = 2.0, diseases: Sequence[str] | None = None
) -> Phantom:
    """Make case `index` of the cohort `seed`; it does not depend on any other case.

    Args:
        seed: of the cohort.
        index: of the case among those of its modality, from 0.
        modality: "ct" or "mr"; CT and MR of one index are different subjects.
        spacing: mm, isotropic.
        diseases: forced findings; None draws them.

    Raises:
        InputError: unknown modality or disease, or a spacing outside 0.5-6 mm.
    """
    check_phantom(modality, spacing, diseases)
    rng = np.random.default_rng([seed, index, ("ct", "mr").index(modality)])
    body, scanner, annotator = rng.spawn(3)
    subject = draw_subject(body, diseases)
    difficulty = float(scanner.beta(1.1, 1.3))
    shape, affine = _grid(modality, spacing, scanner)
    world = _world_points(shape, affine)
    affine[:3, 3] += scanner.uniform(-40, 40, 3).round(1)
    thorax, points = to_heart(world, subject)
    heart = build_heart(points, subject)
    truth = _without_islands(_true_labels(heart, subject, 0.0, 0.0).reshape(shape))
    label = _annotate(heart, subject, shape, spacing, annotator)
    tissue = (ct_tissue if modality == "ct" else mr_tissue)(scanner, difficulty)
    signal = paint_scene(thorax, points, heart, tissue, spacing, body).reshape(shape)
    if modality == "ct":
        image = acquire_ct(signal, world, spacing, difficulty, scanner)
    else:
        image = acquire_mr(signal, spacing, difficulty, scanner)
    return Phantom(image, MMWHS.to_values(label), MMWHS.to_values(truth), affine, subject.diseases, difficulty)


def check_phantom(modality: str, spacing: float, diseases: Sequence[str] | None = None) -> None:
    """Whether there are such phantoms.

    Raises:
        InputError: unknown modality or disease, or a spacing outside 0.5-6 mm.
    """
    if modality not in ("ct", "mr"):
        raise InputError(f"phantom modality {modality!r}: must be ct or mr")
    if not 0.5 <= spacing <= 6:
        raise InputError(f"phantom spacing {spacing} mm: must lie between 0.5 and 6")
    unknown = set(diseases or ()) - set(DISEASES)
    if unknown:
        raise InputError(f"phantom diseases {sorted(unknown)}: there are {', '.join(DISEASES)}")


def _grid(
    modality: Modality, spacing: float, rng: np.random.Generator
) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Shape and affine, centred on 0; MR is stored in varying orientations, often oblique."""
    n = round(FIELD_OF_VIEW_MM / spacing)
    code = str(rng.choice(_ORIENTATIONS[modality]))
    axes = nib.orientations.axcodes2ornt(tuple(code))
    affine = np.eye(4)
    for column, (axis, sign) in enumerate(axes):
        affine[:3, column] = 0
        affine[int(axis), column] = sign * spacing
    tilt = np.deg2rad(rng.uniform(-12, 12)) if modality == "mr" and rng.random() < 0.6 else 0.0
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (n - 1) / 2)
    return (n, n, n), affine


def _world_points(shape: tuple[int, int, int], affine: npt.NDArray[np.float64]) -> Array:
    voxels = np.indices(shape, dtype=np.float32).reshape(3, -1)
    return np.asarray(affine[:3, :3].astype(np.float32) @ voxels + affine[:3, 3:].astype(np.float32), dtype=np.float32)


def _true_labels(heart: Heart, subject: Subject, ao_shift: float, pa_shift: float) -> npt.NDArray[np.uint8]:
    """Indices (N,); later structures win. The shifts (mm) move the levels at which the great vessels end."""
    f = heart.fields
    label = np.zeros(f["lv"].shape, dtype=np.uint8)

    def write(key: str, inside: npt.NDArray[np.bool_]) -> None:
        label[inside] = MMWHS.keys.index(key) + 1

    write("pa", (f["pa"] < 0) & (heart.pa_length < subject.pa_cut + pa_shift))
    write("rv", f["rv"] < 0)
    write("ra", f["ra"] < 0)
    write("myo", f["epi"] < 0)
    write("la", f["la"] < 0)
    write("ao", (f["ao"] < 0) & (heart.ao_length < subject.ao_cut + ao_shift))
    write("lv", f["lv"] < 0)
    return label


def _annotate(
    heart: Heart, subject: Subject, shape: tuple[int, int, int], spacing: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The label as drawn by hand: other vessel ends, and borders moved by a smooth random field of about half a mm."""
    drawn = _true_labels(heart, subject, *rng.normal(0, 5, 2).clip(-10, 10)).reshape(shape)
    wander = rng.uniform(0.3, 0.7) / spacing
    voxels = np.indices(shape, dtype=np.float32)
    for axis in range(3):
        voxels[axis] += np.float32(wander) * smooth_noise(rng, shape, spacing, 9.0)
    return _without_islands(ndimage.map_coordinates(drawn, voxels, order=0, mode="nearest"))


def _without_islands(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Each structure's largest part: where two surfaces touch, voxels come loose."""
    kept = np.zeros_like(label)
    for index in range(1, MMWHS.n_classes):
        parts, n = ndimage.label(label == index)
        if n:
            kept[parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])] = index
    return kept

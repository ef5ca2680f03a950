"""A NIfTI label map with the names of its values in the header extension that TotalSegmentator writes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def saved(path: Path, array: np.ndarray, affine: np.ndarray, names: dict[int, str] | None = None) -> Path:
    image = nib.Nifti1Image(array, affine)
    if names:
        rows = "".join(f'<Label Key="{value}"><![CDATA[{name}]]></Label>' for value, name in names.items())
        table = (
            f"<CaretExtension><VolumeInformation><LabelTable>{rows}</LabelTable></VolumeInformation></CaretExtension>"
        )
        image.header.extensions.append(nib.nifti1.Nifti1Extension(0, table.encode()))
    nib.save(image, path)
    return path

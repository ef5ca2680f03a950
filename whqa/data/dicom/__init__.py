"""DICOM: a series as image, a segmentation or contours as mask, results as a segmentation; the extra `whqa[dicom]`."""

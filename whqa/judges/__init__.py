"""Whatever looks at an image and a mask and says P: baselines, calibration, correction."""

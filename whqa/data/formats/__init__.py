"""Files of volumes: NIfTI, NRRD and MetaImage, read with distrust, written whole."""

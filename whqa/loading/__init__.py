"""The data of one fold: patches, their order and the data module of both stages."""

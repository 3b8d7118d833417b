"""How good a segmentation is, by the measures of the field, at any size."""

"""A table of measurements, one row for each object of a stored label."""

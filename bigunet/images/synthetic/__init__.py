"""A synthetic slide: which nuclei, what a microscope makes of them, and the files."""

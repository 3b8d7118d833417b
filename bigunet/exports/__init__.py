"""Labels for other programs: outlines as GeoJSON, pixels as OME-TIFF."""

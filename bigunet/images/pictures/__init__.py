"""What a preview is drawn of: colours, classes, resampled pixels, panels and their layout."""

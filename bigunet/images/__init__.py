"""Where pixels come from and where they go: images, labels, pyramids, samples."""

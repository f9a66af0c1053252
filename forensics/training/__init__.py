"""Training detectors and generators with Lightning."""

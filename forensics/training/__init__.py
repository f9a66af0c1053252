"""Training of detectors and generators with Lightning."""

"""From image files to pixels, and measures of pixels without a detector."""

"""Image files to pixels, and what pixels tell without a detector."""

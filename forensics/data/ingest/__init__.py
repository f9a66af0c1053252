"""Conversion of downloaded data sets into sources."""

"""Toy faces, rendered by code."""

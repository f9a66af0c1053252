"""Data sets as users have them, to sources."""

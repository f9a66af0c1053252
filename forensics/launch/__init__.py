"""Launching of jobs from a command line: entry points, resume, sweeps."""

"""From a command line to jobs: entry points, resume, sweeps."""

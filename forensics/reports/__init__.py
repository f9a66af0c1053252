"""Tables and figures of the results of runs."""

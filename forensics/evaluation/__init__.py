"""Scores to evidence: thresholds, metrics, intervals."""

"""Evaluation of scores: thresholds, metrics, intervals."""

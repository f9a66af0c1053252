"""Use of a trained detector: scores, predictions, explanations, exports."""

from forensics.scoring.predictor import Prediction, Predictor, Verdict

__all__ = ["Prediction", "Predictor", "Verdict"]

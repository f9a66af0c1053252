"""Training augmentations (the paper: preprocessing), computed on the device."""

from forensics.preprocess.base import Draws, Preprocess, Preprocessed
from forensics.preprocess.steps import PREPROCESSES

__all__ = ["PREPROCESSES", "Draws", "Preprocess", "Preprocessed"]

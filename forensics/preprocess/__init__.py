"""Training augmentations (the paper: preprocessing), computed on the device."""

from forensics.preprocess.base import Draws, Preprocess, Preprocessed
from forensics.preprocess.handling import Blur, BlurNoise, Handling, Jpeg, Noise, Untouched

__all__ = ["PREPROCESSES", "Draws", "Preprocess", "Preprocessed"]

PREPROCESSES: dict[str, type] = {
    "none": Untouched,
    "blur": Blur,
    "noise": Noise,
    "blur_noise": BlurNoise,
    "jpeg": Jpeg,
    "handling": Handling,
}
"""The options of ``conf/preprocess`` and their operators; add one's own before training."""

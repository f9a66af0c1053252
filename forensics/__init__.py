"""Can a detector of GAN images be trusted on generators it has never seen?

``forensics.train([...])`` trains and tests a detector; ``forensics.Detector.load(FOLDER)`` reads
one, to score images. Both import torch only when they are used.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forensics.scoring import Predictor as Detector

__version__ = "0.1.0"
__all__ = ["Detector", "train"]


def train(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train a detector, test it on every generator, write the run's folder, as ``train.py`` does.

    Args:
        overrides: settings ``KEY=VALUE`` as on the command line, such as ``preprocess=noise``.

    Returns:
        The content of the run's ``result.json``.

    Raises:
        UserError: if a setting or file is wrong; the text says what to do.
    """
    from forensics import programs, runs

    return runs.read_result(programs.call("train", overrides))


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import `Detector` when it is first asked for."""
    if name == "Detector":
        from forensics.scoring import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Composition of operators: in order, one of several, each with a probability."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from torch import Tensor

from forensics import checks
from forensics.errors import UserError
from forensics.preprocess.base import Draws, Preprocess, Preprocessed
from forensics.preprocess.handling import (
    Blur,
    BlurSigma,
    CropResize,
    Jpeg,
    MaskFrequencies,
    Noise,
    Per,
    Resize,
    SwapSpectra,
    Untouched,
    uniform,
)

ONE_OF, PROBABILITY, PER = "one_of", "probability", "per"


class _Step:
    """A step: each image gets one of its operators, or none."""

    def __init__(self, operators: list[Preprocess], probability: float, per: Per) -> None:
        self._operators, self._probability, self._per = operators, probability, per

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        count = len(images)
        done = torch.ones(count, dtype=torch.bool)
        if self._probability < 1:  # nothing is drawn for what is certain
            done = uniform(1.0, count, self._per, draws) < self._probability
        picked = torch.zeros(count)
        if len(self._operators) > 1:
            picked = uniform(float(len(self._operators)), count, self._per, draws).floor()
        strengths: dict[str, Tensor] = {}
        for number, operator in enumerate(self._operators):
            chosen = done & (picked == number)
            if chosen.all():
                return operator(images, draws)
            if chosen.any():
                changed, drawn = operator(images[chosen], draws)
                images = images.clone()
                images[chosen] = changed
                for name, values in drawn.items():
                    strengths.setdefault(name, torch.full((count,), torch.nan))[chosen] = values
        return Preprocessed(images, strengths)


@dataclass
class Steps:
    """Operators in order, each applied with a probability; not in the paper.

    A step is a mapping from an operator's name, a key of `forensics.preprocess.PREPROCESSES`, to
    its settings without ``per``, or from ``one_of`` to a list of steps, of which one is drawn with
    equal chances. Either may have a ``probability`` of its own::

        steps:
          - blur: {kernel_sizes: [3, 5]}
          - one_of: [{noise: {max_std_grey_levels: 5}}, {resize: {scales: [0.5]}}, {none: {}}]
          - jpeg: {min_quality: 30, max_quality: 100}
            probability: 0.1

    Attributes:
        name: name of the composition in reports.
        steps: the steps, first to last.
        probability: the chance of each step to be applied, independently of the others, in [0, 1];
            1 for those in ``one_of``.
        per: draw whether to apply a step, and its strengths, once per batch or per image.
    """

    name: str
    steps: list[Any]
    probability: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse unknown operators and settings out of range; errors name the key."""
        key = "preprocess.steps"
        checks.require(bool(self.steps), key, self.steps, "list at least one operator")
        self._steps = [
            self._step(given, f"{key}[{number}]", self.probability)
            for number, given in enumerate(self.steps)
        ]

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Apply the steps to ``images``, ``(B, 3, H, W)`` float in [0, 255].

        A strength is NaN for images that did not get its operator, and missing if none did. Those
        of a further step of one kind end in its number.
        """
        strengths: dict[str, Tensor] = {}
        for number, step in enumerate(self._steps):
            images, drawn = step(images, draws)
            for name, values in drawn.items():
                strengths[f"{name}_{number + 1}" if name in strengths else name] = values
        return Preprocessed(images, strengths)

    def _step(self, given: object, place: str, probability: float) -> _Step:
        """The step of a mapping; ``place`` is its key, ``probability`` that if it has none."""
        step = dict(given) if isinstance(given, Mapping) else {}
        key = f"{place}.{PROBABILITY}" if PROBABILITY in step else f"preprocess.{PROBABILITY}"
        chance = step.pop(PROBABILITY, probability)
        is_number = isinstance(chance, int | float) and 0 <= chance <= 1
        checks.require(is_number, key, chance, "be a number in [0, 1]")
        range_ = "be a mapping from one operator to its settings, such as {blur: {...}}"
        checks.require(len(step) == 1, place, given, range_)
        ((name, settings),) = step.items()
        place = f"{place}.{name}"
        if name != ONE_OF:
            return _Step([self._operator(str(name), settings, place)], chance, self.per)
        is_list = isinstance(settings, list) and bool(settings)
        checks.require(is_list, place, settings, "be a list of steps")
        options: list[Preprocess] = [
            self._step(option, f"{place}[{number}]", 1) for number, option in enumerate(settings)
        ]
        return _Step(options, chance, self.per)

    def _operator(self, name: str, settings: object, place: str) -> Preprocess:
        known = [name for name, kind in PREPROCESSES.items() if kind is not Steps]
        if name not in known:
            close = difflib.get_close_matches(name, [*known, ONE_OF], n=1)
            guess = f"did you mean {close[0]}?" if close else f"choose of {', '.join(known)}."
            raise UserError(f"{place} is no operator: {guess}", key=place)
        kind = PREPROCESSES[name]
        given = settings or {}
        checks.require(isinstance(given, Mapping), place, given, "be a mapping of settings")
        given = dict(cast(Mapping[str, Any], given))
        everywhere = "be left out: preprocess.per is for all steps"
        checks.require(PER not in given, f"{place}.{PER}", given.get(PER), everywhere)
        if PER in {field.name for field in fields(kind)}:
            given[PER] = self.per
        try:
            operator = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), given))
        except UserError as error:  # names its keys as if the operator were alone
            names = str(error).replace("preprocess.", f"{place}.")
            key = (error.key or place).replace("preprocess", place, 1)
            raise UserError(names, key=key) from error
        except OmegaConfBaseException as error:
            key = f"{place}.{error.full_key}"
            unknown = isinstance(error, ConfigKeyError)
            reason = "is no setting of it" if unknown else str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{key}: {reason}.", key=key) from error
        return cast(Preprocess, operator)


PREPROCESSES: dict[str, type] = {
    "none": Untouched,
    "blur": Blur,
    "noise": Noise,
    "jpeg": Jpeg,
    "resize": Resize,
    "crop_resize": CropResize,
    "blur_sigma": BlurSigma,
    "mask_frequencies": MaskFrequencies,
    "swap_spectra": SwapSpectra,
    "steps": Steps,
}
"""Operators by name: the settings of ``conf/preprocess``, and what `Steps` is made of.

Add one's own before training.
"""

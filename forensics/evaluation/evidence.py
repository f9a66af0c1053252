"""Where in an image a detector finds what it decides by."""

from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from forensics.errors import UserError


class Mapped(Protocol):
    """What every detector has that says where it looks."""

    @property
    def last_feature_layer(self) -> nn.Module:
        """The module whose output are the last feature maps, ``(B, C, h, w)``."""
        ...


def need_captum() -> None:
    """Refuse to begin what `grad_cam` could not do.

    Raises:
        UserError: if Captum is not installed.
    """
    if find_spec("captum") is None:
        raise UserError("--explain needs captum: pip install -c constraints.txt '.[explain]'.")


def grad_cam(detector: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """Weigh a detector's last feature maps by how its score rises with each of them.

    Args:
        detector: one of `forensics.detectors`, in evaluation mode.
        images: ``(B, 3, S, S)`` float in [-1, 1].

    Returns:
        ``(B, h, w)``, coarse: above 0 where an image looks real to it, below 0 where generated.

    Source: arXiv 1610.02391, equations 1 and 2 before its ReLU, by Captum's LayerGradCam.
    """
    from captum.attr import LayerGradCam

    layer = cast(Mapped, detector).last_feature_layer
    maps: Tensor = LayerGradCam(detector, layer).attribute(images)
    return maps[:, 0].detach().float().cpu().numpy()

"""Explanations: maps of the evidence for a score, by Grad-CAM."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from forensics.detectors import Detector
from forensics.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_explainable(detector: Detector) -> None:
    """Check in advance that `grad_cam` can explain a detector.

    Raises:
        UserError: if the detector has no feature maps for Grad-CAM, or Captum is missing.
    """
    if detector.saliency_layer() is None:
        raise UserError(
            f"A {type(detector).__name__} has no feature maps for Grad-CAM: leave out --explain.",
            key="--explain",
        )
    if find_spec("captum") is None:
        raise UserError(
            "--explain needs captum: pip install -c constraints.txt '.[explain]'.", key="--explain"
        )


def grad_cam(detector: Detector, images: Tensor) -> NDArray[np.float32]:
    """Grad-CAM: a detector's last feature maps, weighted by the gradient of the score.

    Args:
        detector: has a `Detector.saliency_layer`, in evaluation mode.
        images: ``(B, 3, S, S)`` float in [0, 255].

    Returns:
        ``(B, h, w)``, coarse: above 0 for evidence of real, below 0 for evidence of generated.

    Source: arXiv 1610.02391, equations 1 and 2 before its ReLU, by Captum's LayerGradCam.
    """
    from captum.attr import LayerGradCam

    layer = detector.saliency_layer()
    assert layer is not None
    maps: Tensor = LayerGradCam(detector, layer).attribute(images)
    return maps[:, 0].detach().float().cpu().numpy()


def explanation(
    square: NDArray[np.uint8],
    evidence: NDArray[np.floating],
    towards: str,
    profile: NDArray[np.float64],
    spectra: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
) -> "Figure":
    """Draw an explanation: the image, its evidence map, its spectrum beside the sources'.

    Args:
        square: ``(S, S, 3)`` uint8, as the detector sees it.
        evidence: ``(h, w)``; only values above 0 are evidence.
        towards: the class that the evidence is for.
        profile: profile of the image's spectrum, from `forensics.images.spectra.profiles`.
        spectra: ``mean`` and ``std`` of the profiles, by training source.
        title: title of the figure.
    """
    # Imported here, because scoring alone does not need matplotlib.
    from matplotlib.figure import Figure

    from forensics.labels import as_label

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    figure.suptitle(as_label(title), fontsize=10, wrap=True)
    seen, where, spectrum = figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
    size = len(square)
    for axis in (seen, where):
        axis.imshow(square)
        axis.set_axis_off()
    seen.set_title(f"as the detector sees it, {size} px", fontsize=10)
    most = float(evidence.max())
    if most > 0:
        heat = where.imshow(
            evidence.clip(0) / most, cmap="inferno", vmin=0, vmax=1, alpha=0.55,
            extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="bilinear",
        )  # fmt: skip
        figure.colorbar(heat, ax=where, label="relative to the maximum", shrink=0.8)
        where.set_title(f"evidence for {towards}", fontsize=10)
    else:
        where.set_title(f"no evidence for {towards}", fontsize=10)
    frequencies = np.arange(len(profile)) / size
    for name, source in spectra.items():
        mean, std = np.array(source["mean"]), np.array(source["std"])
        (line,) = spectrum.plot(
            frequencies, mean, linewidth=1, label=as_label(f"{name}, mean ± 1 std")
        )
        spectrum.fill_between(
            frequencies, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0
        )
    spectrum.plot(frequencies, profile, color="black", label="this image")
    spectrum.set(xlabel="frequency, cycles per pixel", ylabel="log10 power")
    spectrum.set_title("spectrum, with those of the training images", fontsize=10)
    spectrum.legend(fontsize=8)
    return figure

"""FreqNet: high frequencies of image, maps and channels, and learnt filters of spectra.

Source: Tan et al., "Frequency-aware deepfake detection: improving generalizability through
frequency space learning", AAAI 2024, arXiv 2403.07240.

Theirs: order of the layers, channels, removed frequencies, initial weights: N(0, 1) for the four
convolutions with biases, He's for others. Ours: the removed frequencies are symmetric about 0,
theirs include their negative limit; the front end's unit; no crops. Two equalities replace
transforms, which would be slow and cannot be exported to ONNX: see `highpass`, `SpectralFilter`.

Read: forks of the authors' public code (no licence seen); none was copied.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from forensics import checks
from forensics.detectors.front_ends import lowpass_matrix
from forensics.detectors.network import Network, NetworkSettings
from forensics.detectors.truncated_resnet import BLOCKS, resnet_weights, stage


class FreqNet(Network):
    """Convolutions 1x1 between high-pass filters and spectral filters, and ResNet-50's two stages.

    All in float32, also under autocast.

    Args:
        settings: settings of the network.
    """

    def __init__(self, settings: "FreqNetSettings") -> None:
        super().__init__(settings)
        width = settings.width
        self.first = nn.Conv2d(self.front_end.channels, width, 1)
        self.first_spectral = SpectralFilter(width)
        self.second = nn.Conv2d(width, width, 1, stride=2)
        self.second_spectral = SpectralFilter(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.first_stage = stage(width, width, BLOCKS[0], stride=1, bottleneck=True)
        self.third = nn.Conv2d(4 * width, 4 * width, 1)
        self.third_spectral = SpectralFilter(4 * width)
        self.fourth = nn.Conv2d(4 * width, 4 * width, 1, stride=2)
        self.fourth_spectral = SpectralFilter(4 * width)
        self.second_stage = stage(4 * width, 2 * width, BLOCKS[1], stride=2, bottleneck=True)
        self.score = nn.Linear(8 * width, 1)
        self.apply(resnet_weights)
        for convolution in (self.first, self.second, self.third, self.fourth):
            for parameter in convolution.parameters():
                nn.init.normal_(parameter)

    def body(self, inputs: Tensor) -> Tensor:
        """The means of the last maps, ``(B, 8 width)``."""
        # Differences of bfloat16's rounded values would be noise, in all of these layers.
        with torch.autocast(inputs.device.type, enabled=False):
            maps = relu(self.first(relu(inputs.float())))
            maps = self.first_spectral(highpass(maps, (1,)))
            maps = relu(self.second(highpass(maps, (2, 3))))
            maps = self.second_spectral(highpass(maps, (1,)))
            maps = self.first_stage(self.pool(maps))
            maps = self.third_spectral(relu(self.third(highpass(maps, (2, 3)))))
            maps = self.fourth_spectral(relu(self.fourth(highpass(maps, (2, 3)))))
            features: Tensor = self.second_stage(maps).mean(dim=(2, 3))
        return features

    def saliency_layer(self) -> nn.Module:
        """The last block."""
        return self.second_stage


class SpectralFilter(nn.Module):
    """Separate 1x1 convolutions of the real and the imaginary part of the maps' spectra, and ReLU.

    A convolution 1x1 commutes with the Fourier transform over height and width; the real part of a
    spectrum is the spectrum of the map's even part, i times the imaginary part that of its odd part
    (about the first pixel, on a torus). So these parts are convolved, without a transform.

    Args:
        channels: number of input and of output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, channels, 1, bias=False)
        self.odd = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels, h, w)`` to the same shape."""
        reflected = maps.flip((2, 3)).roll((1, 1), (2, 3))
        return relu(self.even((maps + reflected) / 2) + self.odd((maps - reflected) / 2))


def highpass(maps: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Maps without the frequencies below 1/4 in all of some axes, and ReLU.

    Computed by matrix products.

    Args:
        maps: ``(B, C, h, w)``.
        axes: of 1 (frequencies across channels), 2 and 3.
    """
    low = maps
    for axis in axes:
        low = (low.movedim(axis, -1) @ lowpass_matrix(maps, axis)).movedim(-1, axis)
    return relu(maps - low)


@dataclass(kw_only=True)
class FreqNetSettings(NetworkSettings):
    """Settings of FreqNet, in addition to every network's.

    Attributes:
        width: channels of the first convolution, others are in proportion; 64 in the paper.
    """

    width: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.at_least(self, "model.", width=1)

    def build(self, image_size: int, *, pretrained: bool) -> FreqNet:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return FreqNet(self)

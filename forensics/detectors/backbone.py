"""Backbones of timm with a linear unit: CNNDetection, NoDown, UnivFD, Xception and VGG-16.

timm (Apache-2) has the architectures and their input statistics and sizes. The settings classes at
the end name each method's source; none of their code, where it was read, was copied.
"""

import errno
import importlib
import importlib.util
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from forensics import checks
from forensics.detectors.base import Detector, Optimization, Step, linear_scores
from forensics.errors import UserError
from forensics.preprocess.base import Draws

log = logging.getLogger(__name__)


class Backbone(Detector):
    """A backbone of timm and a linear unit on its features, trained together.

    Args:
        backbone: a model of timm without classifier.
        resized: height and width that images are resized to (bicubic), None for those they have.
        optimization: settings of Adam.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Any,  # noqa: ANN401
        resized: int | None,
        optimization: Optimization,
    ) -> None:
        super().__init__(optimization)
        self._resized = resized
        self.backbone = backbone
        self.maps = nn.Identity()
        # In the detector file, so that later versions of timm cannot change them.
        for name in ("mean", "std"):
            values = torch.tensor(backbone.pretrained_cfg[name])
            self.register_buffer(name, 255 * values[:, None, None])
        self.score = nn.Linear(backbone.head_hidden_size, 1)
        nn.init.normal_(self.score.weight, 0.0, 0.02)
        nn.init.zeros_(self.score.bias)

    def features(self, images: Tensor) -> Tensor:
        """The backbone's pooled features, ``(B, D)`` float32."""
        size = self._resized
        if size is not None and size != images.shape[-1]:
            # Antialiasing has an effect on enlarged images, too, and is slow.
            smaller = size < images.shape[-1]
            images = interpolate(images, (size, size), mode="bicubic", antialias=smaller)
        maps = self.maps(self.backbone.forward_features((images - self.mean) / self.std))
        features: Tensor = self.backbone.forward_head(maps)
        return features.float()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the linear unit, above 0 for real."""
        return linear_scores(self.score, self.features(images))

    def saliency_layer(self) -> nn.Module | None:
        """The backbone's last maps; None for backbones without, such as transformers."""
        side = self.backbone.pretrained_cfg["input_size"][-1]
        device = self.mean.device
        with torch.no_grad():
            maps = self.backbone.forward_features(torch.zeros(1, 3, side, side, device=device))
        has_maps = maps.ndim == 4 and maps.shape[1] == self.backbone.num_features
        return self.maps if has_maps else None


class FrozenBackbone(Backbone):
    """A backbone whose weights stay as they are, and a logistic model of its features.

    The features of each training image are computed once, augmented as in the first epoch, and the
    model is fitted to all of them, standardised, before the first epoch. Nothing is trained by
    gradient, so further epochs change nothing.

    Args:
        backbone: a model of timm without classifier.
        resized: height and width that images are resized to (bicubic), None for those they have.
        optimization: ``weight_decay``, above 0, is the penalty of the logistic model: to the mean
            cross-entropy is added half its product with the sum of squared weights.
    """

    def __init__(
        self,
        backbone: Any,  # noqa: ANN401
        resized: int | None,
        optimization: Optimization,
    ) -> None:
        super().__init__(backbone, resized, optimization)
        self._penalty = optimization.weight_decay
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Set the mode of all but the backbone, whose BatchNorm statistics stay, too."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the logistic model to the features of the training images."""
        from sklearn.linear_model import LogisticRegression  # a slow import

        rows, labels = zip(
            *((self.features(images).cpu(), labels.cpu()) for images, labels in batches),
            strict=True,
        )
        features = torch.cat(rows).double()
        mean, std = features.mean(dim=0), features.std(dim=0)
        std = std.clamp(min=1e-3 * float(std.max()))  # features that hardly vary are not enlarged
        model = LogisticRegression(C=1 / (self._penalty * len(features)), max_iter=10_000)
        model.fit(((features - mean) / std).numpy(), torch.cat(labels).numpy())
        weights = torch.from_numpy(model.coef_[0]) / std
        self.score.weight.copy_(weights[None])
        self.score.bias.fill_(float(model.intercept_[0]) - float(weights @ mean))

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """No loss; scores in evaluation alone, because training epochs need none."""
        return Step(None, None if self.training else self(images))

    @property
    def is_probabilistic(self) -> bool:
        """True: scores are the logits of a logistic model."""
        return True


def load_weights(backbone: Any, path: Path, name: str) -> None:  # noqa: ANN401
    """Load a file of weights into a backbone, by key, or by order where keys differ.

    A classifier in the file is left out. Number and shapes of all other tensors must be those of
    the backbone. No code in the file is run.

    Args:
        backbone: a model of timm without classifier.
        path: safetensors, or a state dict written by torch.
        name: the backbone's name, for the error.

    Raises:
        UserError: if the file cannot be read or is of another architecture.
    """
    key = "model.pretrained"
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # Counts of BatchNorm, which older files lack and nothing here reads.
        given = {k: v.float() for k, v in content.items() if not k.endswith("num_batches_tracked")}
    except Exception as error:  # of pickle, zip files, safetensors, torch: many kinds
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"model.pretrained={path} cannot be read as weights ({type(error).__name__}: "
            f"{reason}): give a .safetensors file or a state dict saved by torch.",
            key=key,
        ) from error
    own = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    classifier = f"{backbone.pretrained_cfg['classifier']}."
    matched = {k: v for k, v in given.items() if not k.startswith(classifier)}
    if matched.keys() != own.keys():
        # In order, the classifier's weight and bias are the last two.
        values = list(given.values())
        if [v.ndim for v in values[len(own) :]] == [2, 1]:
            values = values[: len(own)]
        matched = dict(zip(own, values, strict=False)) if len(values) == len(own) else {}
    for tensor, value in own.items():
        if tensor not in matched or matched[tensor].shape != value.shape:
            found = f"{tuple(matched[tensor].shape)}" if tensor in matched else "not there"
            raise UserError(
                f"model.pretrained={path} does not have the weights of {name} ({tensor} is "
                f"{found}, not {tuple(value.shape)}): set model.name to the file's architecture, "
                "or give another file.",
                key=key,
            )
    backbone.load_state_dict(matched, strict=False)


@dataclass(kw_only=True)
class BackboneSettings(Optimization):
    """Settings of any backbone of timm, in addition to Adam's.

    Attributes:
        name: of a model of timm, possibly with the tag of its weights, such as
            ``resnet50.tv_in1k``.
        pretrained: ``true`` downloads the weights that timm names (once), ``false`` begins with
            random ones, anything else is a file with them, see `load_weights`.
        frozen: whether only the linear unit is fitted, see `FrozenBackbone`: of Adam's settings,
            ``weight_decay`` alone is used.
        resize: whether images are resized to the size of the backbone's pretraining; otherwise
            they are scored as they are, which not all backbones can.
    """

    name: str
    pretrained: bool | str
    frozen: bool
    resize: bool

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        if self.frozen:
            holds = self.pretrained is not False
            with_weights = "be true (a download) or a FILE with weights if model.frozen=true"
            checks.require(holds, "model.pretrained", self.pretrained, with_weights)
            penalty = "be above 0 if model.frozen=true"
            holds = self.weight_decay > 0
            checks.require(holds, "model.weight_decay", self.weight_decay, penalty)

    def build(self, image_size: int, *, pretrained: bool) -> Backbone:
        """Make the detector, with fresh weights from torch's global generator where none are given.

        Args:
            image_size: height and width of the images in pixels.
            pretrained: load the backbone's weights; False if a file has all weights.

        Raises:
            UserError: if timm is not installed or has no such model, weights cannot be had, or the
                backbone cannot score images of this size.
        """
        backbone = self.backbone(pretrained=pretrained and self.pretrained is True)
        if pretrained and isinstance(self.pretrained, str):
            load_weights(backbone, Path(self.pretrained), self.name)
        config = backbone.pretrained_cfg
        own = config["input_size"][-1]
        if not self.resize and config.get("fixed_input_size") and image_size != own:
            raise UserError(
                f"{self.name} scores images of {own} px only: set model.resize=true or "
                f"dataset.image_size={own}.",
                key="model.resize",
            )
        kind = FrozenBackbone if self.frozen else Backbone
        return kind(backbone, own if self.resize else None, self)

    def backbone(self, *, pretrained: bool) -> Any:  # noqa: ANN401
        """Make the backbone, of the type of timm's model, without classifier.

        Args:
            pretrained: download the weights that timm names, or use those of an earlier download.
        """
        if importlib.util.find_spec("timm") is None:
            raise UserError(
                f"{self.name} needs timm: pip install -c constraints.txt '.[timm]'.", key="model"
            )
        timm: Any = importlib.import_module("timm")
        if not timm.is_model(self.name):
            close = ", ".join(timm.list_models(f"*{self.name.partition('.')[0]}*")[:5])
            raise UserError(
                f"model.name={self.name} is not a model of timm {timm.__version__}: "
                f"{f'it has {close}' if close else 'see timm.list_models()'}.",
                key="model.name",
            )
        try:
            return timm.create_model(self.name, pretrained=pretrained, num_classes=0)
        except Exception as error:  # of timm, the hub, several HTTP libraries, their cache
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reason = next(iter(str(error).splitlines()), "")
            if not pretrained:
                raise UserError(
                    f"model.name={self.name} cannot be built ({reason}): give another one.",
                    key="model.name",
                ) from error
            raise UserError(
                f"The weights of {self.name} cannot be downloaded ({type(error).__name__}: "
                f"{reason}): where there is no connection, copy their file from another machine "
                "(huggingface.co/timm) and set model.pretrained=FILE.",
                key="model.pretrained",
            ) from error


@dataclass(kw_only=True)
class CnnDetectionSettings(BackboneSettings):
    """CNNDetection: ResNet-50 with ImageNet's weights, fine-tuned.

    Source: Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020,
    arXiv 1912.11035; code read under CC-BY-NC-SA. Theirs: network, N(0, 0.02) as the linear unit's
    first weights, Adam's settings. Blur and JPEG in training are a preprocess; their learning rate
    falls when validation stalls, here it is constant.
    """


@dataclass(kw_only=True)
class NoDownSettings(BackboneSettings):
    """NoDown: a ResNet whose first convolution and first pooling do not reduce the resolution.

    Source: Gragnaniello et al., "Are GAN generated images easy to detect?", ICME 2021, arXiv
    2104.02617; code read under a non-profit licence. Both strides are 1, so that all maps have 16
    times as many pixels and multiply-adds. Theirs: network; augmentations are the preprocess's.
    """

    def backbone(self, *, pretrained: bool) -> Any:  # noqa: ANN401
        """Make the backbone with both strides 1.

        Args:
            pretrained: download the weights that timm names, or use those of an earlier download.

        Raises:
            UserError: if it is not a ResNet.
        """
        backbone = super().backbone(pretrained=pretrained)
        is_resnet = hasattr(backbone, "conv1") and hasattr(backbone, "maxpool")
        checks.require(is_resnet, "model.name", self.name, "be a ResNet")
        backbone.conv1.stride, backbone.maxpool.stride = (1, 1), 1
        return backbone


@dataclass(kw_only=True)
class UnivFdSettings(BackboneSettings):
    """UnivFD: a linear unit on the frozen image encoder of CLIP, ViT-L/14.

    Source: Ojha, Li and Lee, "Towards universal fake image detectors that generalize across
    generative models", CVPR 2023, arXiv 2302.10174; code read under MIT. Theirs: the frozen encoder
    and one linear unit. Ours: features before CLIP's projection to 768 numbers, of which a linear
    unit on the projection is a special case; fitted as a penalised logistic model, not by Adam;
    complete images resized, not cropped.
    """


@dataclass(kw_only=True)
class XceptionSettings(BackboneSettings):
    """Xception with ImageNet's weights, fine-tuned: the sturdiest of Marra et al.

    Source: Marra, Gragnaniello, Cozzolino and Verdoliva, "Detection of GAN-generated fake images
    over social networks", MIPR 2018, of which only the abstract could be read: Adam's settings are
    ours. Their DenseNet and Inception are ``model.name=densenet121`` and ``inception_v3``.
    """


@dataclass(kw_only=True)
class Vgg16Settings(BackboneSettings):
    """VGG-16, fine-tuned or frozen, after Do, Na and Kim.

    Source: reference [14] of arXiv 1902.11153, which could not be read. It starts from VGG-Face,
    whose weights are for research only and not timm's: give their file, or use ImageNet's.
    """

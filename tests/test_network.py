"""What every network has: its front end, constraints after each step, evidence in one direction."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import dcgan_discriminator, detector_card, residual_patches
from torch import Tensor

from forensics.checks import plain
from forensics.detectors import DETECTORS, DetectorSettings
from forensics.detectors.card import UPGRADES, current
from forensics.detectors.front_ends import CENTRE, FrontEnd
from forensics.detectors.network import Network
from forensics.model_files import load_model, save_model
from forensics.preprocess.base import Draws


def images(count: int, size: int = 16) -> Tensor:
    """Noise in [0, 255]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


def trained(network: Network, steps: int = 5) -> Network:
    """Train on noise, with constraints checked after each step."""
    optimizer, labels = network.optimizer(), torch.tensor([0.0, 1.0] * 8)
    assert optimizer is not None
    for number in range(steps):
        loss = network.step(images(16), labels, Draws.at(0, 0, number)).loss
        assert loss is not None
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        network.after_step()
        if network.front_end.channels == 5:  # of a constrained convolution
            weights = next(network.front_end.parameters()).detach().flatten(1)
            assert (weights[:, CENTRE] == -1).all()
            torch.testing.assert_close(weights.sum(1), torch.zeros(5), atol=1e-5, rtol=0)
    return network.eval()


class Constrained(Network):
    """Five filters and the mean of their squares."""

    def __init__(self) -> None:
        settings = residual_patches([4], front_end="constrained", learning_rate=0.3)
        super().__init__(settings, filters=5)
        self.score = torch.nn.Linear(5, 1)

    def body(self, inputs: Tensor) -> Tensor:
        return inputs.square().mean(dim=(2, 3))


def test_constraint_holds_after_each_step_of_a_learning_rate_far_too_large() -> None:
    torch.manual_seed(0)
    network = Constrained()
    before = next(network.front_end.parameters()).detach().clone()
    trained(network)
    assert (next(network.front_end.parameters()) - before).abs().max() > 0.01


def test_generated_evidence_alone_lowers_a_score_from_the_bias() -> None:
    torch.manual_seed(0)
    settings = dcgan_discriminator([4, 8], only_generated_evidence=True, learning_rate=0.01)
    network = trained(settings.build(16, pretrained=False))
    features, scores = network.features(images(20)), network(images(20))
    assert network.score.weight.max() <= 0
    assert network.score.weight.min() < 0
    assert features.min() == 0  # leaky ReLUs' negative values are cut off
    assert network.score.bias > -9
    assert (scores <= network.score.bias).all()
    expected = features.flatten(1) @ network.score.weight[0] + network.score.bias
    torch.testing.assert_close(scores, expected)


def test_without_the_switch_weights_have_both_signs() -> None:
    torch.manual_seed(0)
    network = trained(dcgan_discriminator([4, 8]).build(16, pretrained=False))
    assert network.score.weight.min() < 0 < network.score.weight.max()
    assert network.features(images(4)).min() < 0


@pytest.mark.parametrize("front_end", FrontEnd)
def test_any_network_takes_any_front_end(front_end: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks: dict[str, DetectorSettings] = {
        "dcgan_discriminator": dcgan_discriminator([4], front_end=front_end),
        "residual_patches": residual_patches([4], front_end=front_end),
    }
    for name, settings in networks.items():
        network = settings.build(16, pretrained=False).eval()
        path = tmp_path / name
        content = {"name": name, "settings": plain(settings), "image_size": 16}
        save_model(path, network, {"network": content})
        again = load_model(path, DETECTORS, UPGRADES, pretrained=False).model
        assert torch.equal(again(images(2)), network(images(2)))


@pytest.mark.parametrize(
    ("former", "now"),
    [("none", "rgb"), ("nearest", "npr"), ("median", "lpd"), ("laplacian", "laplacian")],
)
def test_file_of_format_2_has_the_front_end_by_its_current_name(
    former: str, now: str, tmp_path: Path
) -> None:
    settings = residual_patches([4], front_end=now)
    network, path = settings.build(16, pretrained=False).eval(), tmp_path / "detector"
    content = plain(settings) | {"front_end": former}
    del content["only_generated_evidence"]  # which format 2 did not have
    card = dataclasses.replace(detector_card(), model="residual_patches", model_settings=content)
    save_model(path, network, card.to_file() | {"format": 2})
    model, found, _ = load_model(path, DETECTORS, UPGRADES, pretrained=False)
    assert found["network"]["settings"]["front_end"] == now
    assert torch.equal(model(images(2)), network(images(2)))


def test_settings_of_earlier_runs_are_current_ones() -> None:
    given = {"model": "dcgan_discriminator", "seed": 1, "model.front_end": "nearest"}
    expected = given | {"model.front_end": "npr", "model.only_generated_evidence": False}
    of_data = {
        "dataset.view": "resize",
        "dataset.split": "first_last",
        "dataset.find_layout": False,
    }
    assert current(given) == expected | of_data
    assert current({"model": "dcgan_discriminator"})["model.front_end"] == "rgb"
    assert "model.front_end" not in current({"generator": "dcgan"})

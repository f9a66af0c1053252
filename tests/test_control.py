"""The science's own controls: transfer that exists is found, and none is where there is none.

A result of "nothing carries over" means something only if the same pipeline finds what does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import photos
from numpy.typing import NDArray
from PIL import Image

TRAIN = Path(__file__).parents[1] / "train.py"
SIDE, COUNT = 32, 240

Pixels = NDArray[np.uint8]


def checkerboard(images: Pixels) -> Pixels:
    """The trace that transposed convolutions leave: neighbours alternate."""
    signs = 1 - 2 * (np.indices((SIDE, SIDE)).sum(axis=0) % 2)
    return np.asarray((images + 8.0 * signs[None, :, :, None]).clip(0, 255).round(), np.uint8)


def darker(images: Pixels) -> Pixels:
    """Other content than the photographs, to which a detector may not hold on."""
    return np.asarray((images * 0.85).round(), np.uint8)


def shaded(images: Pixels) -> Pixels:
    """Another trace, at the other end of the spectrum: brighter from left to right."""
    slope = np.linspace(-8, 8, SIDE)
    return np.asarray((images + slope[None, None, :, None]).clip(0, 255).round(), np.uint8)


SOURCES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "real": lambda images: images,
    "trained": checkerboard,
    "shares": lambda images: checkerboard(darker(images)),
    "shares_nothing": shaded,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, (name, changed) in enumerate(SOURCES.items()):
        folder = tmp_path / "sources" / name
        folder.mkdir(parents=True)
        for number, pixels in enumerate(changed(photos(COUNT, SIDE, seed))):
            Image.fromarray(pixels).save(folder / f"{number:03d}.png", compress_level=1)
    return tmp_path / "sources"


@pytest.mark.slow
def test_a_shared_artefact_carries_over_and_another_does_not(
    root: Path, run_program: Callable[..., int], tmp_path: Path
) -> None:
    given = [
        "dataset=paper",
        f"dataset.root={root}",
        "dataset.real=[real]",
        "dataset.generators=[trained,shares,shares_nothing]",
        "dataset.train_on=[trained]",
        f"dataset.image_size={SIDE}",
        "dataset.train_count=160",
        "dataset.test_count=80",
        "dataset.validation_share=0.25",
        "model.channels=[8,16]",
        "model.learning_rate=2e-3",
        "batch_size=16",
        "max_epochs=6",
        "trainer=cpu",
        f"cache_dir={tmp_path}/cache",
        "audit=off",
        "name=x",
    ]
    assert run_program(TRAIN, *given) == 0
    result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
    assert result["validation"]["chance"] is False
    pairs = {pair["generator"]: pair for pair in result["pairs"]}
    assert [pair["seen"] for pair in pairs.values()] == [True, False, False]
    found = {name: pair["at_source_0.05"]["tnr"] for name, pair in pairs.items()}
    kept = pairs["shares"]["at_source_0.05"]["tpr"]
    assert kept > 0.8
    assert found["trained"] > 0.9
    # Positive control.
    assert found["shares"] > 0.8
    assert pairs["shares"]["ranking"]["auroc_interval"][0] > 0.9
    # Negative control: no more than real images that are called generated.
    low, high = pairs["shares_nothing"]["at_source_0.05"]["tnr_interval"]
    assert low <= 1 - kept <= high

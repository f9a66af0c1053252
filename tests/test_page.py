"""The page of `forensics predict` in a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import detector_card, write_images

from forensics.cli import main
from forensics.detectors.card import SpectrumGuard
from forensics.model_files import save_model
from forensics.scoring import Predictor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page(tmp_path: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of images of all verdicts, below a folder of a long name, and an unreadable one."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos") / ("long " * 20)
    images = write_images(folder, 12)
    images[0].rename(folder / f"{'n' * 100}.png")
    (folder / "text.png").write_text("no image")
    predictor = Predictor.load(detector_file)
    logits = [one.logit for one in predictor.predict(sorted(folder.glob("[0n]*.png")))]
    middle = float(np.median(np.array(logits, np.float64)))
    assert predictor.card.guard is not None
    guard = SpectrumGuard(predictor.card.guard.spectra, 1e9)
    at = {"0.5": 0.0, "source_0.05": middle, "source_0.01": middle}
    card = detector_card(thresholds=at, guard=guard)
    save_model(detector_file, predictor.scorer.detector, card.to_file())
    assert main(["predict", str(detector_file), "photos", "-o", "a.csv", "--page", "a.html"]) == 0
    return tmp_path / "a.html"


@pytest.fixture
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra dev: playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # which root cannot use
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield started
        started.close()


@pytest.mark.slow
def test_it_filters_enlarges_and_fits(page: Path, browser: Any) -> None:  # noqa: ANN401
    for width in (400, 800, 1280):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.close()

    tab = browser.new_page(viewport={"width": 800, "height": 900}, color_scheme="light")
    tab.goto(page.as_uri())
    groups = ("generated", "unsure", "real", "unreadable")

    def visible() -> list[str]:
        return [name for name in groups if tab.locator(f"section.{name}").is_visible()]

    assert visible() == list(groups)
    for name in groups:
        tab.locator("fieldset label", has=tab.locator(f"#only-{name}")).click()
        assert visible() == [name]
    tab.locator("fieldset label", has_text="all").click()
    assert visible() == list(groups)

    image = tab.locator("figure img").first
    small = image.bounding_box()
    image.click()
    large = image.bounding_box()
    assert large["width"] >= 2 * small["width"]
    image.click()
    assert image.bounding_box()["width"] == small["width"]
    # With the keyboard alone.
    tab.locator(".enlarge").first.focus()
    tab.keyboard.press("Space")
    assert image.bounding_box() == large
    tab.keyboard.press("Space")

    # No name is broken into lines, whatever its length.
    heights = tab.locator("figure .name").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert len(heights) == 12
    assert len(set(heights)) == 1

    colour = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(colour)
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(colour) != light
    tab.emulate_media(media="print")  # dark text, also for those who prefer a dark screen
    assert tab.evaluate(colour) == light
    assert not tab.locator("fieldset").is_visible()

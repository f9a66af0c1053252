"""The table of docs/detectors.md against the detectors."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forensics import config
from forensics.detectors import DETECTORS

ROOT = Path(__file__).parents[1]


def rows() -> dict[str, list[str]]:
    """Cells of each detector's row, by its name."""
    lines = (ROOT / "docs" / "detectors.md").read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return {name.strip("`"): rest for name, *rest in cells[2:]}


def test_table_has_a_complete_row_for_each_detector() -> None:
    assert list(rows()) == list(DETECTORS)
    assert {len(cells) for cells in rows().values()} == {7}
    assert all(all(cells) for cells in rows().values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "ensemble"])
def test_table_has_the_costs_of_the_config(name: str) -> None:
    config.register()
    cost: Callable[[str, int], Any] = runpy.run_path(
        str(ROOT / "experiments" / "detectors" / "detector_cost.py")
    )["cost"]
    parameters, multiply_adds = cost(name, 128)
    _, counted, added, *_ = rows()[name]
    assert counted == f"{parameters:,}"
    assert added == f"{multiply_adds / 1e6:,.0f} M"

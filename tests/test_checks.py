"""Shared checks: the types of values that a file has, and paths in the home folder."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest

from forensics.checks import expanded, image_size, mismatch, run_name, source_name
from forensics.errors import UserError


@dataclass
class Inner:
    numbers: list[float]


class Outer(TypedDict):
    name: str
    count: int
    inner: Inner
    by_name: dict[str, bool]
    maybe: float | None
    later: NotRequired[str]


RIGHT: dict[str, Any] = {
    "name": "x", "count": 3, "inner": {"numbers": [1, 0.5]}, "by_name": {"a": True},
    "maybe": None, "unknown": [1],
}  # fmt: skip


def test_right_values_have_their_type() -> None:
    assert mismatch(RIGHT, Outer) is None
    assert mismatch(RIGHT | {"maybe": 1, "later": "y"}, Outer) is None


@pytest.mark.parametrize(("changes", "place"), [
    ({"name": 3}, "it.name"),
    ({"name": None}, "it.name"),
    ({"count": True}, "it.count"),
    ({"count": 3.0}, "it.count"),
    ({"inner": []}, "it.inner"),
    ({"inner": {}}, "it.inner.numbers"),
    ({"inner": {"numbers": [1, "2"]}}, "it.inner.numbers[1]"),
    ({"inner": {"numbers": [math.nan]}}, "it.inner.numbers[0]"),
    ({"inner": {"numbers": [False]}}, "it.inner.numbers[0]"),
    ({"by_name": {"a": 1}}, "it.by_name.a"),
    ({"by_name": [True]}, "it.by_name"),
    ({"maybe": "1"}, "it.maybe"),
    ({"later": 1}, "it.later"),
])  # fmt: skip
def test_others_are_named(changes: dict[str, Any], place: str) -> None:
    assert str(mismatch(RIGHT | changes, Outer)).startswith(f"{place} is ")


@pytest.mark.parametrize("key", [key for key in RIGHT if key != "unknown"])
def test_missing_ones_are_named(key: str) -> None:
    assert mismatch({k: v for k, v in RIGHT.items() if k != key}, Outer) == f"it.{key} is missing"


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_so_is_the_whole(value: object) -> None:
    assert mismatch(value, Outer) == f"it is {value!r}"


def test_a_path_may_begin_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert expanded("cache_dir", "~/c") == "/home/x/c"
    assert expanded("cache_dir", "~") == "/home/x"
    assert expanded("cache_dir", "./~c") == "./~c"
    with pytest.raises(UserError, match="cache_dir") as raised:
        expanded("cache_dir", "~nobody-of-that-name/c")
    assert raised.value.key == "cache_dir"
    assert not Path("~").exists()


@pytest.mark.parametrize("name", ["~", "~x", "a/~", "..", "a/../../b", "/a", ""])
def test_the_name_of_a_run_leads_nowhere_else(name: str) -> None:
    with pytest.raises(UserError) as raised:
        run_name(name)
    assert raised.value.key == "name"


@pytest.mark.parametrize("name", ["~", "~x", ".x", "a/b", "a\0b", ""])
def test_the_name_of_a_source_leads_nowhere_else(name: str) -> None:
    with pytest.raises(UserError) as raised:
        source_name("source", name)
    assert raised.value.key == "source"


def test_an_image_size_is_the_least_or_more() -> None:
    image_size(39, least=39)
    with pytest.raises(UserError, match="at least 39, not 38") as caught:
        image_size(38, least=39)
    assert caught.value.key == "dataset.image_size"

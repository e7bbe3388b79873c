"""Worlds that are stopped and looked over after every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.services.world import World, no_surprises


@pytest.fixture(params=[True, False], ids=["midstates", "plain"])
def midstates(request: pytest.FixtureRequest) -> bool:
    """Can this node compute midstates?"""
    return bool(request.param)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What was logged; a traceback among it fails the test."""
    with no_surprises() as said:
        yield said


@pytest.fixture
def make(said: list[str]) -> Iterator[Callable[..., World]]:
    """Makes worlds, and stops them."""
    worlds: list[World] = []

    def make_world(**options: Any) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield make_world
    for world in worlds:
        world.stop()


@pytest.fixture
def world(make: Callable[..., World], midstates: bool) -> World:
    """An ordinary world, of either kind."""
    return make(midstates=midstates)

"""Where the few functions are that are written in C.

Decides nothing about their use, nor whether they are to be believed. They are optional: where there is a C
compiler, setuptools builds them beside the module that loads them through ctypes, and ``make compiled`` does
so in a checkout; without, that module goes on in Python. They know nothing of Python's own interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def places(module: str, name: str) -> Iterator[str]:
    """
    Paths at which a library may be, setuptools' first, then make's.

    :param module: ``__file__`` of the one that loads it.
    """
    for suffix in EXTENSION_SUFFIXES:
        yield str(Path(module).with_name(name + suffix))


__all__ = ["places"]

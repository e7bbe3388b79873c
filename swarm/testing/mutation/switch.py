"""Switching one mutant on: ``SWARM_MUTANT=name python -m pytest -p swarm.testing.mutation.switch …``.

A pytest plugin for no other reason than that plugins are imported before what is tested. Decides nothing
but how a module's source is exchanged; which words are is :mod:`swarm.testing.mutation.mutants`'s.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from attrs import frozen

from swarm.testing.mutation.mutants import MUTANTS, Mutant

VARIABLE = "SWARM_MUTANT"

CPU = 300
"""Seconds of a core that one suite, or one trial of the simulation, may take."""


class DoesNotApply(Exception):
    """The words a mutant exchanges do not stand exactly once in its module."""


def mutate(mutant: Mutant, source: str) -> str:
    """
    Exchange the words.

    :raises DoesNotApply: the code has moved on; so must the mutant.
    """
    if (found := source.count(mutant.old)) != 1:
        raise DoesNotApply(f"{mutant.name}: its words stand {found} times in {mutant.module}")
    return source.replace(mutant.old, mutant.new)


class _Loader(SourceFileLoader):
    """Compiles the mutated source; no bytecode is read or kept."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType | None:
        source = self.get_source(fullname)
        assert source is not None
        code: CodeType = compile(mutate(self._mutant, source), self.path, "exec", dont_inherit=True)
        return code


@frozen
class Finder(MetaPathFinder):
    """Finds one module, mutated."""

    mutant: Mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Part of the import system."""
        if fullname != self.mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return None
        loader = _Loader(fullname, spec.origin, self.mutant)
        return spec_from_file_location(fullname, spec.origin, loader=loader)  # with a __file__


def environment(mutant: Mutant) -> dict[str, str]:
    """For a process in which it is on."""
    return {**os.environ, VARIABLE: mutant.name, "PYTHONDONTWRITEBYTECODE": "1"}


def switch_on(name: str) -> None:
    """
    From now on the module is imported with its fault.

    :raises KeyError: no such mutant. :raises RuntimeError: the module is imported already.
    """
    mutant = MUTANTS[name]
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, Finder(mutant))


def pytest_configure() -> None:
    """A fault that keeps its suite busy for ever is noticed, too, however slow the machine is."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 1))


if name := os.environ.get(VARIABLE):
    switch_on(name)

"""What is installed, and what it needs.

The metadata lives here and not in pyproject.toml because of one package that no
declaration can name: ``twisted.plugins``, a directory without ``__init__.py`` that is
merged into the installed Twisted, so that ``twistd`` finds the ``swarm`` command.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Read ``__version__`` without importing the package, which may not be importable yet."""
    match = re.search(r'^__version__ = "(.+)"$', (HERE / "swarm/__init__.py").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


TEST = [
    "coverage[toml]>=7.10",
    "h11>=0.16",  # what it takes for a request, the doors are compared with
    "hypothesis>=6.150",
    "psutil>=7",
    "pytest>=9",
    "pytest-cov>=7",
    "pytest-timeout>=2.4",
    "pytest-twisted>=1.14.3",
    "pytest-xdist>=3.8",
    "setuptools>=77",  # the packaging tests build the package
]

BENCH = [
    "libtorrent>=2.0.11",  # a rival
    "matplotlib>=3.10",  # the pictures in the results
]

FUZZ = [
    "atheris>=3",  # wheels for CPython 3.11 to 3.14 on x86-64; elsewhere it is built, which takes clang
]

#: Hashes several grains side by side, loaded with ctypes (see swarm/hashing/lanes.py). Where it cannot be
#: built, for want of a compiler, swarm is installed without it and hashes them one after the other.
LANES = Extension(
    "swarm.hashing._lanes",
    sources=["swarm/hashing/lanes.c"],
    depends=["swarm/hashing/rounds.h"],
    extra_compile_args=["-O3"],
    optional=True,
)

#: Receives and decrypts what peers send in one call (see swarm/peering/records.py); optional in the same way.
RECORDS = Extension(
    "swarm.peering._records",
    sources=["swarm/peering/records.c"],
    extra_compile_args=["-O3"],
    optional=True,
)

setup(
    name="swarm",
    version=version(),
    description="Moves and keeps large immutable files between sites",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[*find_packages(include=["swarm", "swarm.*"]), "twisted.plugins"],
    package_data={"swarm": ["py.typed"], "twisted.plugins": ["swarm_plugin.py"]},
    include_package_data=False,
    ext_modules=[LANES, RECORDS],
    zip_safe=False,
    install_requires=[
        "apsw>=3.51.3",  # bundles SQLite, whose WAL-reset bug 3.51.3 fixed
        "attrs>=25.4",
        "Automat>=25.4",
        "click>=8.3",
        "cryptography>=46",
        "klein>=24.8",
        "prometheus-client>=0.23",
        "pyOpenSSL>=26.4",
        "rich>=14.2",
        "service-identity>=26.1",
        "treq>=26.7",
        "Twisted[tls]>=26.10",
        "zope.interface>=8",
    ],
    extras_require={"test": TEST, "bench": BENCH, "fuzz": [*TEST, *FUZZ]},
    entry_points={"console_scripts": ["swarm = swarm.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)

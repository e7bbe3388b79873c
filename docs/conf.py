"""How the documentation is built: ``tox -e docs``."""

from __future__ import annotations

import re
from pathlib import Path

project = "swarm"
author = "the swarm project"
_package = Path(__file__).parent.parent / "swarm/__init__.py"
release = re.findall(r'^__version__ = "(.+)"$', _package.read_text(), re.MULTILINE)[0]

extensions = ["myst_parser"]  # performance.md
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "alabaster"
html_theme_options = {
    "description": "Large immutable files, moved and kept between sites",
    "fixed_sidebar": True,
}

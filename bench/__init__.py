"""Measurements: this node beside real programs, in the same run on the same machine.

``python -m bench`` runs all programs; see ``bench/README.md``. Figures are ratios of medians over
interleaved rounds, because the machines this runs on are noisy. A rival that is missing gets no figure.
"""

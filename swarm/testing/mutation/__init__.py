"""Deliberate faults, to see whether the suites notice: which there are, how one is switched on, who kills it.

Production code knows nothing of this: a mutant is the source of one module with a few words
exchanged while it is imported.
"""

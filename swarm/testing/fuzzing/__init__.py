"""Parsers under bytes nobody thought of: what each promises, and how atheris is set upon them.

``python -m swarm.testing.fuzzing --seconds 60`` gives each its share. What breaks a promise becomes a file
that the ordinary suite, which needs no atheris, replays for ever after. What is promised: :mod:`.fields`,
:mod:`.documents`, :mod:`.connections`.
"""

"""The public test kit: in-memory twins, contract suites, strategies."""

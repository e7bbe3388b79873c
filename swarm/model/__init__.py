"""Values with parsers and no behaviour: what travels between all other parts."""

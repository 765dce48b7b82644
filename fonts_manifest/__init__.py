"""Which font faces exist, which characters they really draw, and under which licence."""

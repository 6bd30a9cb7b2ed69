"""Fixed-size attacks: the worst point of a given set, min over S(x0) of m(x)."""

"""Built-in architectures: `names()` lists them, `build(name, shape, classes)` makes one.

All of them take raw inputs in the model's own units (normalisation is put in front by `from_torch`) and
give logits (b, classes). Parameter names are those of the networks' published state dicts.
"""

from saddlepoint.adapters.architectures.registry import build, canonical_shape, names

__all__ = ["build", "canonical_shape", "names"]

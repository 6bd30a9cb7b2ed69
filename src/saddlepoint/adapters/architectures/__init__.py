"""Built-in architectures: `names()` lists them, `build(name, shape, classes)` makes one.

All of them take raw inputs in the model's own units (normalisation is put in front by `from_torch`) and
give logits (b, classes). Parameter names are those of the networks' published state dicts. The layers of the
1-Lipschitz network are here to build one's own from.
"""

from saddlepoint.adapters.architectures.lipschitz import GroupSort, OrthogonalConv2d, OrthogonalLinear
from saddlepoint.adapters.architectures.registry import build, canonical_shape, names

__all__ = ["GroupSort", "OrthogonalConv2d", "OrthogonalLinear", "build", "canonical_shape", "names"]

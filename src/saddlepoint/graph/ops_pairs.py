"""Two variables as one vector, and operators on such pairs: how bounds see products (decompose.py puts them there).

    Join            (a, b) -> (a flattened, b flattened)                        linear
    Product         the joined (x, y) -> x ⊙ y                                  MatrixProduct: x y
    Differences     D[…, i, j] = x[…, j] − x[…, i] along the last axis          linear, zero on the diagonal

So every nonlinear operator that is bounded has one input, and its bounds are those of one value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.graph.ops_base import CopyOp, LinearOp, NonlinearOp, Shape


@dataclass(frozen=True, eq=False)
class Join(CopyOp):
    """Inputs (N, *shapeᵢ), flattened, one after the other."""

    def map(self, *xs: Tensor) -> Tensor:
        return torch.cat([x.reshape(x.shape[0], math.prod(x.shape[1:])) for x in xs], 1)


@dataclass(frozen=True, eq=False)
class Product(NonlinearOp):
    """y = a ⊙ b from the joined (a, b), both of `shape`."""

    shape: Shape

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a and b."""
        a, b = x.chunk(2, 1)
        return a.reshape(-1, *self.shape), b.reshape(-1, *self.shape)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """a ⊙ b."""
        return a * b

    def __call__(self, *xs: Tensor) -> Tensor:
        return self.join(*self.split(xs[0]))


@dataclass(frozen=True, eq=False)
class MatrixProduct(NonlinearOp):
    """y = a b over the last two axes, from the joined (a, b) of shapes `left` and `right`."""

    left: Shape
    right: Shape

    @property
    def shape(self) -> Shape:
        """Shape of a b."""
        return (*self.left[:-1], self.right[-1])

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a and b."""
        size = math.prod(self.left)
        return x[:, :size].reshape(-1, *self.left), x[:, size:].reshape(-1, *self.right)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """a b."""
        return torch.matmul(a, b)

    def __call__(self, *xs: Tensor) -> Tensor:
        return self.join(*self.split(xs[0]))


@dataclass(frozen=True, eq=False)
class Differences(LinearOp):
    """D[…, i, j] = x[…, j] − x[…, i]."""

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].unsqueeze(-2) - xs[0].unsqueeze(-1)

    def absolute(self) -> LinearOp:
        return PairSums()

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 1 << 12  # each entry collects 2 (n − 1) terms; axes of up to 2048 entries


@dataclass(frozen=True, eq=False)
class PairSums(LinearOp):
    """|W| of `Differences`: x[…, j] + x[…, i], and 0 where i = j."""

    def map(self, *xs: Tensor) -> Tensor:
        n = xs[0].shape[-1]
        sums = xs[0].unsqueeze(-2) + xs[0].unsqueeze(-1)
        return sums * (1 - torch.eye(n, dtype=sums.dtype, device=sums.device))

    def absolute(self) -> LinearOp:
        return self

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 1 << 12

"""Linear operators of arithmetic: Add, Sub, Negate, and + · / with constants.

Shapes of two variables are equal and a constant never makes its variable grow: where a model broadcasts a
variable, the readers put an `Expand` in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from saddlepoint.graph.ops_base import CopyOp, LinearOp, Shape


@dataclass(frozen=True, eq=False)
class Add(LinearOp):
    """y = a + b."""

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0] + xs[1]

    def absolute(self) -> Add:
        return self

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Sub(LinearOp):
    """y = a − b."""

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0] - xs[1]

    def absolute(self) -> Add:
        return Add()

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Identity(CopyOp):
    """y = x. The readers leave identities out; this is |−1| of `Negate`."""

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0]


@dataclass(frozen=True, eq=False)
class Negate(CopyOp):
    """y = −x (exact)."""

    def map(self, *xs: Tensor) -> Tensor:
        return -xs[0]

    def absolute(self) -> Identity:
        return Identity()


@dataclass(frozen=True, eq=False)
class AddConstant(CopyOp):
    """y = x + c. value (1, …), broadcast to (1, *shape)."""

    value: Tensor

    def __call__(self, *xs: Tensor) -> Tensor:
        return xs[0] + self.value

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0]

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        return self.value.to(like).expand(1, *in_shapes[0])


@dataclass(frozen=True, eq=False)
class MulConstant(LinearOp):
    """y = c ⊙ x. value (1, …), broadcast to (1, *shape)."""

    value: Tensor

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0] * self.value

    def absolute(self) -> MulConstant:
        return replace(self, value=self.value.abs())

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class DivConstant(LinearOp):
    """y = x / c, element by element (not x · (1/c), which rounds twice). value as in MulConstant."""

    value: Tensor

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0] / self.value

    def absolute(self) -> DivConstant:
        return replace(self, value=self.value.abs())

    @property
    def products(self) -> int:
        return 1

    @property
    def products_transposed(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class Constant(CopyOp):
    """y = c whatever the input (a learned token, say): W = 0. value (1, *out). The input only tells N."""

    value: Tensor

    def __call__(self, *xs: Tensor) -> Tensor:
        return self.value.expand(xs[0].shape[0], *self.value.shape[1:])

    def map(self, *xs: Tensor) -> Tensor:
        return xs[0].new_zeros((xs[0].shape[0], *self.value.shape[1:]))

    def constant(self, in_shapes: Sequence[Shape], like: Tensor) -> Tensor | None:
        return self.value.to(like)

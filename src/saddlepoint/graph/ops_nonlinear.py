"""Nonlinear operators. bound/rules says which can be bounded, after decompose.py has split up the compound ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.graph.ops_base import NonlinearOp

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Relu(NonlinearOp):
    """y = max(x, 0)."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.relu(xs[0])


@dataclass(frozen=True, eq=False)
class LeakyRelu(NonlinearOp):
    """y = x where x > 0, else slope · x."""

    slope: float

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.leaky_relu(xs[0], self.slope)


@dataclass(frozen=True, eq=False)
class Clip(NonlinearOp):
    """y = min(max(x, lower), upper): ReLU6, hardtanh, clamp. Infinite limits are allowed."""

    lower: float = -math.inf
    upper: float = math.inf

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.clamp(xs[0], self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class MaxPool2d(NonlinearOp):
    """Maximum over windows of (N, C, H, W); padding counts as −∞."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.max_pool2d(xs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)


@dataclass(frozen=True, eq=False)
class Sigmoid(NonlinearOp):
    """y = 1 / (1 + e^(−x))."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.sigmoid(xs[0])


@dataclass(frozen=True, eq=False)
class Tanh(NonlinearOp):
    """y = tanh x."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.tanh(xs[0])


@dataclass(frozen=True, eq=False)
class Exp(NonlinearOp):
    """y = e^x."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.exp(xs[0])


@dataclass(frozen=True, eq=False)
class Abs(NonlinearOp):
    """y = |x|."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.abs(xs[0])


@dataclass(frozen=True, eq=False)
class Softmax(NonlinearOp):
    """y = e^x / Σ e^x along one axis."""

    axis: int

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.softmax(xs[0], self.axis)


@dataclass(frozen=True, eq=False)
class LogSoftmax(NonlinearOp):
    """y = x − log Σ e^x along one axis."""

    axis: int

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.log_softmax(xs[0], self.axis)


@dataclass(frozen=True, eq=False)
class Mul(NonlinearOp):
    """y = a ⊙ b of two variables of equal shape."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return xs[0] * xs[1]


@dataclass(frozen=True, eq=False)
class MatMul(NonlinearOp):
    """y = a b of two variables over the last two axes."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.matmul(xs[0], xs[1])


@dataclass(frozen=True, eq=False)
class Div(NonlinearOp):
    """y = a / b of two variables of equal shape."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return xs[0] / xs[1]


@dataclass(frozen=True, eq=False)
class LayerNorm(NonlinearOp):
    """Normalisation over the last axes of sizes weight.shape, then weight · y + bias."""

    weight: Tensor
    bias: Tensor
    epsilon: float = 1e-5

    def __call__(self, *xs: Tensor) -> Tensor:
        return F.layer_norm(xs[0], self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, eq=False)
class Power(NonlinearOp):
    """y = x^exponent, of every x for a whole exponent, of x ≥ 0 for others."""

    exponent: float

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.pow(xs[0], self.exponent)


@dataclass(frozen=True, eq=False)
class Maximum(NonlinearOp):
    """y = max(a, b) of two variables of equal shape."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.maximum(xs[0], xs[1])


@dataclass(frozen=True, eq=False)
class Minimum(NonlinearOp):
    """y = min(a, b) of two variables of equal shape."""

    def __call__(self, *xs: Tensor) -> Tensor:
        return torch.minimum(xs[0], xs[1])


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Elu": F.elu,
    "Erf": torch.erf,
    "Floor": torch.floor,
    "Gelu": F.gelu,
    "GeluTanh": lambda x: F.gelu(x, approximate="tanh"),
    "HardSigmoid": F.hardsigmoid,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Rsqrt": torch.rsqrt,
    "Sign": torch.sign,
    "Silu": F.silu,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
}


@dataclass(frozen=True, eq=False)
class Elementwise(NonlinearOp):
    """y = f(x) for a function of `ELEMENTWISE`, with torch's default parameters. `kind` is the function's name."""

    function: str

    @property
    def kind(self) -> str:
        return self.function

    def __call__(self, *xs: Tensor) -> Tensor:
        return ELEMENTWISE[self.function](xs[0])

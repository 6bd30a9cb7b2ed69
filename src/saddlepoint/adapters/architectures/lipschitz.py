"""Networks that are 1-Lipschitz in ℓ2 by construction: orthogonal layers with GroupSort between them.

    ‖f(x) − f(x')‖ ≤ ‖x − x'‖      so      ⟨e_y − e_j, f⟩ / √2 = 0 is no nearer than (margin of j)/√2

Every layer is an isometry where its sizes allow one and never stretches, so the product of their constants is no loose
bound (Anil, Lucas, Grosse, ICML 2019). Weights are made orthogonal by the Cayley transform, exact to rounding for any
trained matrix W = [U; V], tall or square (Trockman & Kolter, ICLR 2021, §3 and appendix; a wide one is transposed):

    A = U − Uᵀ + VᵀV,      Q = [(I + A)⁻¹ (I − A);  −2 V (I + A)⁻¹],      QᵀQ = I

A convolution applies Q to every k × k patch. A pixel lies in at most ⌈k/s⌉² patches, so all patches together are at
most ⌈k/s⌉ times as long as the image, and Q/⌈k/s⌉ stretches nothing; for k = s it is orthogonal.
GroupSort sorts pairs of channels: a permutation at every point, which keeps all norms where ReLU loses half.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.adapters.architectures.shapes import convolved, image_shape
from saddlepoint.core.errors import InputError


def cayley(weight: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The orthogonal matrix of a free one: orthonormal columns (m ≥ n) or rows."""
    if weight.shape[0] < weight.shape[1]:
        return cayley(weight.t()).t()
    n = weight.shape[1]
    u, v = weight[:n], weight[n:]
    a = u - u.t() + v.t() @ v
    one = torch.eye(n, dtype=weight.dtype, device=weight.device)
    # (I + A)⁻¹ commutes with I − A; I + A has a positive definite symmetric part, so it is never singular
    inverse = torch.linalg.solve(one + a, one)
    return torch.cat([inverse @ (one - a), -2 * v @ inverse])


class OrthogonalLinear(nn.Module):
    """x ↦ Q x + b, QQᵀ = I or QᵀQ = I."""

    lipschitz = 1.0

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the free matrix so that VᵀV is about I."""
        nn.init.normal_(self.weight, std=max(self.weight.shape) ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Q x + b, x (b, in)."""
        return functional.linear(x, cayley(self.weight), self.bias)


class OrthogonalConv2d(nn.Module):
    """The patches of an image, each times Q/⌈k/s⌉; zero padding (which stretches nothing)."""

    lipschitz = 1.0

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the free matrix so that VᵀV is about I."""
        nn.init.normal_(self.weight, std=max(self.weight.flatten(1).shape) ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution with Q's rows as kernels, x (b, c, h, w)."""
        q = cayley(self.weight.flatten(1)) / -(-self.kernel // self.stride)
        return functional.conv2d(x, q.view_as(self.weight), self.bias, self.stride, self.padding)


class GroupSort(nn.Module):
    """Channel i of the first half and channel i of the second, the larger first (groups of two: MaxMin)."""

    lipschitz = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Sorted pairs of channels, x (b, c, …)."""
        if x.shape[1] % 2:
            raise InputError(f"GroupSort of {x.shape[1]} channels.", "It sorts pairs: give an even number.")
        first, second = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


def lipschitz_s(shape: tuple[int, ...], classes: int) -> nn.Module:
    """4x4 convolution with stride 2 (16 c filters), 2x2 with stride 2 (64 c), hidden layer of 128; c: input channels.

    The first two are isometries up to the border: they have as many filters as a patch has numbers.
    """
    channels, height, width = image_shape("lipschitz-s", shape, 4)
    rows, columns = (convolved(convolved(n, 4, 2, 1), 2, 2, 0) for n in (height, width))
    return nn.Sequential(
        OrthogonalConv2d(channels, 16 * channels, 4, 2, 1),
        GroupSort(),
        OrthogonalConv2d(16 * channels, 64 * channels, 2, 2),
        GroupSort(),
        nn.Flatten(),
        OrthogonalLinear(64 * channels * rows * columns, 128),
        GroupSort(),
        OrthogonalLinear(128, classes),
    )

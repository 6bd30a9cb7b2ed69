"""Global Lipschitz bounds: how far a margin can fall at distance r, from the weights alone.

    min over S(x₀) of ⟨c, f⟩ ≥ ⟨c, f(x₀)⟩ − L_p(c) r_p,      r_p = max over S(x₀) of ‖x − x₀‖_p,   p = 1, 2, ∞: the best

L(x) = 1, L(W₁ v₁ + W₂ v₂ + b) ≤ ‖W₁‖ L(v₁) + ‖W₂‖ L(v₂), and an elementwise σ multiplies by its steepest slope. What
stands behind the last nonlinear node is multiplied into c first, and |⟨a, v⟩ − ⟨a, v'⟩| ≤ ‖a‖_q L(v) ‖x − x'‖_p with
1/p + 1/q = 1 (Szegedy et al. 2014, §4.3; the margins' own rows: Tsuzuku et al. 2018, Lipschitz-margin training, §3).

Sorted pairs (GroupSort) count as one operator with the constant 1 (sorting.py).

Operator norms, all from above: ‖W‖_∞ = max of |W| 1, ‖W‖₁ = max of |W|ᵀ 1, exactly; ‖W‖₂ by the least of
- √(‖W‖₁ ‖W‖_∞)                                            exact for diagonal maps and copies
- Gram iteration (Delattre et al., ICML 2023):  ‖W‖₂ ≤ ‖W_t‖_F^(1/2^t),  W_{i+1} = W_iᵀ W_i,  on the matrix itself where
  it is small; a convolution's zero padding makes it a part of the circular one on a larger torus, which the Fourier
  transform makes block diagonal: the largest Gram bound of a frequency (Sedghi et al. 2019; stride only selects rows)
- a convolution as W on every window: ‖W‖₂ √(windows that share an entry)
Rounding: fl(WᵀW) is off by γ_n ‖W‖_F² in norm, which is added at each squaring; all else is inflated by 1e-9.

Cost: one forward per sample; the constant is the graph's own and computed once per call. Loose for deep networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from saddlepoint.bound.backward import Lines, Walker
from saddlepoint.bound.base import Bounds, Proof, never_certify, specification
from saddlepoint.bound.interval import region_of
from saddlepoint.bound.rows import Rows
from saddlepoint.bound.sorting import SortedPairs, join_sorted_pairs
from saddlepoint.core.arithmetic import gamma
from saddlepoint.core.errors import UnsupportedOperator
from saddlepoint.geometry.base import PerturbationSet
from saddlepoint.geometry.l1 import L1
from saddlepoint.geometry.l2 import L2
from saddlepoint.geometry.sizes import above
from saddlepoint.geometry.snap import round_down
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import (
    Abs,
    Clip,
    Conv2d,
    LeakyRelu,
    Linear,
    LinearOp,
    MaxPool2d,
    Relu,
    Shape,
    Sigmoid,
    Tanh,
)
from saddlepoint.graph.transpose import transpose

NORMS = (1.0, 2.0, math.inf)
UP = 1 + 1e-9
GRAM = 6  # squarings: the Frobenius norm is then off by rank^(1/2^7)
DENSE = 1 << 22  # entries of a matrix that is written out

Constants = tuple[float, float, float]  # for p = 1, 2, ∞


@dataclass(frozen=True)
class Lipschitz:
    """Bounds by global Lipschitz constants in ℓ1, ℓ2 and ℓ∞, the best of the three."""

    @property
    def name(self) -> str:
        """The method's name in evidence."""
        return "lipschitz"

    def __call__(
        self,
        graph: Graph,
        set: PerturbationSet,
        x: Float[Tensor, "b *shape"],
        C: Float[Tensor, "b m k"] | None = None,
    ) -> Bounds:
        """lower (b, m) ≤ C f(x') on S(x). Raises UnsupportedOperator for operators without a known steepest slope."""
        wanted = specification(graph, x, C).double()
        exact, points = graph.to(torch.float64), x.double()
        with torch.no_grad():
            centre = torch.einsum("bmk,bk->bm", wanted, exact(points))
            falls = margin_constants(exact, wanted)
            reach = _reach(set, points)
            fall = (falls * reach[:, None]).nan_to_num(nan=torch.inf).amin(2)  # ∞ · 0 says nothing
            lower = centre - fall * UP - 1e-9 * (1 + centre.abs())
        return Bounds(round_down(never_certify(lower), x.dtype), None, Proof({}))


def margin_constants(graph: Graph, C: Float[Tensor, "b m k"]) -> Float[Tensor, "b m 3"]:
    """L_p of every row ⟨C, f⟩ for p = 1, 2, ∞, the linear tail multiplied out."""
    b, m, k = C.shape
    graph = join_sorted_pairs(graph)
    constants = _Constants(graph)
    start = Rows(C.reshape(b * m, k), graph.output_shape)
    lines = Walker(graph).shared(Lines({graph.output: start}, C.new_zeros(b * m)))
    total = C.new_zeros((b * m, 3))
    for name, rows in lines.rows.items():
        a = rows.full().flatten(1)
        for i, (p, constant) in enumerate(zip(NORMS, constants.of[name], strict=True)):
            dual = torch.inf if p == 1 else 1.0 if p == math.inf else 2.0
            total[:, i] += torch.linalg.vector_norm(a, dual, dim=1) * constant * UP
    return total.view(b, m, 3)


@dataclass(frozen=True)
class _Constants:
    graph: Graph

    @cached_property
    def of(self) -> dict[str, Constants]:
        """L_p of every value as a function of the input."""
        found: dict[str, Constants] = {self.graph.input: (1.0, 1.0, 1.0)}
        for node in self.graph.nodes:
            inputs = [found[name] for name in node.inputs]
            if isinstance(node.op, LinearOp):
                norms = operator_norms(node.op, self.graph.in_shapes(node))
                sums = [sum(n[i] * v[i] for n, v in zip(norms, inputs, strict=True)) * UP for i in range(3)]
            else:
                steep = _steepest(node, self.graph.in_shapes(node)[0])
                sums = [s * v for s, v in zip(steep, inputs[0], strict=True)]
            found[node.name] = (sums[0], sums[1], sums[2])
        return found


def _steepest(node: Node, shape: Shape) -> Constants:
    """How much a nonlinear operator stretches at most."""
    op = node.op
    if isinstance(op, (Relu, Clip, Abs, Tanh, SortedPairs)):
        return 1.0, 1.0, 1.0
    if isinstance(op, Sigmoid):
        return 0.25, 0.25, 0.25
    if isinstance(op, LeakyRelu):
        steep = max(1.0, abs(op.slope))
        return steep, steep, steep
    if isinstance(op, MaxPool2d):  # |max a − max b| ≤ max |a − b|; an input lies in so many windows at most
        shared = math.prod(
            -(-((k - 1) * d + 1) // s) for k, d, s in zip(op.kernel, op.dilation, op.stride, strict=True)
        )
        return float(shared), math.sqrt(shared), 1.0
    raise UnsupportedOperator(
        f"no Lipschitz constant for operator {op.kind} (node {node.name!r}).",
        "There are constants for linear operators, ReLU, LeakyReLU, Clip, Abs, Sigmoid, Tanh, max pools, sorted pairs.",
    )


@torch.no_grad()
def operator_norms(op: LinearOp, in_shapes: tuple[Shape, ...]) -> list[Constants]:
    """Upper bounds of ‖W_k‖₁, ‖W_k‖₂, ‖W_k‖_∞ for every input of a linear operator (float64)."""
    absolute, found = op.absolute(), []
    for k in range(len(in_shapes)):
        ones = [torch.full((1, *s), float(i == k), dtype=torch.float64) for i, s in enumerate(in_shapes)]
        image = absolute.map(*ones)
        rows = float(image.amax()) * UP  # ‖W‖_∞: the largest absolute row sum
        columns = float(transpose(absolute, torch.ones_like(image), in_shapes)[k].amax()) * UP
        found.append((columns, min(math.sqrt(rows * columns) * UP, _spectral(op, in_shapes, k)), rows))
    return found


def _spectral(op: LinearOp, in_shapes: tuple[Shape, ...], k: int) -> float:
    """A bound of ‖W_k‖₂; ∞ where none is cheap."""
    patches = _patches(op) if isinstance(op, Conv2d) else math.inf
    return min(patches, _whole(op, in_shapes, k))


def _patches(op: Conv2d) -> float:
    """‖W‖ on one window times √(how many windows share an entry): exact where windows do not overlap."""
    groups = op.weight.double().flatten(1).unflatten(0, (op.groups, -1))
    steps = [s // math.gcd(s, d) for s, d in zip(op.stride, op.dilation, strict=True)]
    shared = math.prod(-(-w // step) for w, step in zip(op.weight.shape[2:], steps, strict=True))
    return gram(groups) * math.sqrt(shared) * UP


def _whole(op: LinearOp, in_shapes: tuple[Shape, ...], k: int) -> float:
    """By Gram iteration on the matrix, or on its frequencies."""
    size = math.prod(in_shapes[k])
    if isinstance(op, Linear):
        return gram(op.weight.double())
    zeros = [torch.zeros((1, *s), dtype=torch.float64) for s in in_shapes]
    if size * op.map(*zeros).numel() <= DENSE:
        xs = [torch.zeros((size, *s), dtype=torch.float64) for s in in_shapes]
        xs[k] = torch.eye(size, dtype=torch.float64).view(size, *in_shapes[k])
        return gram(op.map(*xs).reshape(size, -1))
    return _frequencies(op, in_shapes[0]) if isinstance(op, Conv2d) else math.inf


def _frequencies(op: Conv2d, shape: Shape) -> float:
    """The circular convolution on a torus that holds the input and every window once."""
    sides = [n + d * (w - 1) for n, d, w in zip(shape[1:], op.dilation, op.weight.shape[2:], strict=True)]
    kernel = torch.zeros((*op.weight.shape[:2], *sides), dtype=torch.float64)
    rows, columns = (torch.arange(w) * d for w, d in zip(op.weight.shape[2:], op.dilation, strict=True))
    kernel[:, :, rows[:, None], columns[None]] = op.weight.double().cpu()
    spectrum = torch.fft.rfft2(kernel).permute(2, 3, 0, 1).flatten(0, 1)  # real kernels: half of them suffice
    groups = spectrum.reshape(len(spectrum), op.groups, -1, spectrum.shape[2]).flatten(0, 1)
    return gram(groups)


def gram(matrix: Tensor) -> float:
    """The largest ‖·‖₂ of one matrix or a batch, from above."""
    a = matrix if matrix.ndim == 3 else matrix[None]
    if a.shape[1] < a.shape[2]:
        a = a.mH
    if not bool(torch.isfinite(torch.view_as_real(a) if a.is_complex() else a).all()):
        return math.inf
    scales, errors = [], []
    for _ in range(GRAM):
        # powers of two: dividing by them rounds nothing
        norm = torch.linalg.matrix_norm(a)
        scale = torch.exp2(torch.ceil(torch.log2(norm.clamp_min(1e-300))))
        a = a / scale[:, None, None]
        scales.append(scale)
        # ‖fl(aᴴa) − aᴴa‖₂ ≤ γ_n ‖a‖_F² ≤ γ_n; complex products round a few times more
        errors.append(4 * gamma(4 * a.shape[1]))
        a = a.mH @ a
    # the Frobenius norm is near where one singular value leads, the row sums where all are alike (orthogonal layers)
    bound = torch.minimum(torch.linalg.matrix_norm(a), a.abs().sum(-1).amax(-1)) * UP
    for scale, error in zip(reversed(scales), reversed(errors), strict=True):
        bound = scale * torch.sqrt(bound + error) * (1 + 1e-15)  # ‖a‖₂² = ‖aᴴa‖₂
    return float(bound.amax()) * UP


def _reach(set: PerturbationSet, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b 3"]:
    """max ‖x' − x₀‖_p over S(x₀) for p = 1, 2, ∞: of its box, and of the ball itself."""
    region = region_of(set, x)
    room = torch.maximum(region.upper - x, x - region.lower).flatten(1)
    found = torch.stack([torch.linalg.vector_norm(room, p, dim=1) for p in NORMS], 1)
    if isinstance(set, (L1, L2)):
        size = above(set.size, x).reshape(-1, 1)
        root = math.sqrt(room.shape[1])
        # ‖·‖_∞ ≤ ‖·‖₂ ≤ ‖·‖₁ ≤ √n ‖·‖₂
        ball = size * torch.tensor([1.0, 1.0, 1.0] if isinstance(set, L1) else [root, 1.0, 1.0], dtype=x.dtype)
        found = torch.minimum(found, ball)
    return found * UP

"""Assembles a graph node by node: what torch.export's and ONNX's readers share.

A reader holds *values*: `Ref` (a variable of the graph, batch axis left out of its shape) or `Tensor` (a constant,
folded as the reader goes). The builder infers shapes by running every operator once on two rows of zeros and
refuses what would mix the rows of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saddlepoint.core.errors import NonFinite, UnsupportedModel, UnsupportedOperator
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops_base import Op, Shape
from saddlepoint.graph.ops_shape import Expand

LARGEST = 1 << 28  # entries of one value of one sample: a gigabyte of float32, and shapes are inferred on two


@dataclass(frozen=True)
class Ref:
    """A variable of the graph: (N, *shape)."""

    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        """Number of axes, the batch axis counted."""
        return len(self.shape) + 1


Value = Ref | Tensor


def _all_finite(tensor: Tensor) -> bool:
    """Every entry finite? NaN and infinity survive a sum, so a finite sum settles it (and is ten times faster)."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


class Builder:
    """Collects nodes. `where` says what is being read, for the messages ("Conv node conv1", "aten.add in layer2")."""

    def __init__(self, input_shape: Shape, dtype: torch.dtype, name: str = "x") -> None:
        self.input = Ref(name, tuple(input_shape))
        self.dtype = dtype
        self.where = ""
        self._nodes: list[Node] = []
        self._names = {name}
        self._made: dict[str, Node] = {}

    def add(self, op: Op, *inputs: Ref, name: str = "") -> Ref:
        """Appends `op(*inputs)` and returns its value."""
        for field, tensor in op.tensors().items():
            if tensor.is_floating_point() and not _all_finite(tensor):
                raise NonFinite(
                    f"{self.where or op.kind}: the {field} holds NaN or infinity.", "Train or export it again."
                )
        shape = self._infer(op, inputs)
        unique = self._unique(name or op.kind.lower())
        node = Node(unique, op, tuple(r.name for r in inputs), shape)
        self._nodes.append(node)
        self._made[unique] = node
        return Ref(unique, shape)

    def graph(self, output: Value) -> Graph:
        """The finished graph, without the nodes that the output does not need."""
        if isinstance(output, Tensor):
            raise UnsupportedModel("the output does not depend on the input.", "Check which output was exported.")
        needed = {output.name}
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if node.name in needed:
                needed |= set(node.inputs)
                kept.append(node)
        return Graph(tuple(reversed(kept)), self.input.name, output.name, self.input.shape)

    def constant(self, value: Tensor | float | int) -> Tensor:
        """A constant in the graph's floating type."""
        return torch.as_tensor(value).detach().to(self.dtype)

    def unsupported(self, why: str, remedy: str = "") -> UnsupportedOperator:
        """The error to raise for the node being read."""
        return UnsupportedOperator(
            f"{self.where}: {why}.", remedy or "The model can still be attacked through its gradients or scores."
        )

    def align(self, x: Ref, constant: Tensor) -> tuple[Ref, Tensor]:
        """x and a constant with equal ranks, x grown to the common shape; the constant starts with axis 1."""
        c = self.constant(constant)
        if c.dim() > x.rank or (c.dim() == x.rank and c.shape[0] != 1):
            raise self.unsupported(
                f"a constant of shape {tuple(c.shape)} meets a value of shape (N, {str(x.shape)[1:-1]}): "
                "it would mix the samples of a batch"
            )
        c = c.reshape((1,) * (x.rank - c.dim()) + tuple(c.shape))
        return self.expand(x, self.common(x.shape, tuple(c.shape[1:]))), c

    def match(self, a: Ref, b: Ref) -> tuple[Ref, Ref]:
        """Two variables grown to their common shape."""
        if a.rank != b.rank:
            raise self.unsupported(f"values of shapes (N, {a.shape}) and (N, {b.shape}) differ in rank")
        shape = self.common(a.shape, b.shape)
        return self.expand(a, shape), self.expand(b, shape)

    def common(self, a: Shape, b: Shape) -> Shape:
        """The shape that two shapes broadcast to (NumPy's rule; torch's own function imports sympy: half a second)."""
        try:
            return tuple(np.broadcast_shapes(a, b))
        except ValueError as error:
            raise UnsupportedModel(
                f"{self.where}: the shapes {a} and {b} do not broadcast.", "Check that the file is complete."
            ) from error

    def producer(self, x: Ref) -> Node | None:
        """The node that gives x; None for the graph's input."""
        return self._made.get(x.name)

    def shape(self, name: str) -> Shape:
        """Shape of a value by name."""
        return self.input.shape if name == self.input.name else self._made[name].shape

    def expand(self, x: Ref, shape: Shape) -> Ref:
        """x broadcast to `shape` (x itself if it has that shape)."""
        return x if x.shape == shape else self.add(Expand(x.shape, shape), x)

    def axis(self, axis: int, x: Ref) -> int:
        """A non-negative axis; the batch axis is refused."""
        positive = axis + x.rank if axis < 0 else axis
        if positive == 0:
            raise self.unsupported("it works along the batch axis, so samples would influence each other")
        if not 0 < positive < x.rank:
            raise self.unsupported(f"axis {axis} does not exist in a value of rank {x.rank}")
        return positive

    def axes(self, axes: Sequence[int], x: Ref) -> tuple[int, ...]:
        """Several axes, sorted."""
        return tuple(sorted(self.axis(a, x) for a in axes))

    def _unique(self, name: str) -> str:
        unique, k = name, 1
        while unique in self._names:
            k += 1
            unique = f"{name}_{k}"
        self._names.add(unique)
        return unique

    def _infer(self, op: Op, inputs: tuple[Ref, ...]) -> Shape:
        # two rows of zeros: torch's meta device would need no arithmetic, but a second of imports
        device = next((t.device for t in op.tensors().values()), None)
        largest = max((math.prod(r.shape) for r in inputs), default=0)
        if largest > LARGEST:
            raise self.unsupported(f"a value of {largest:,} entries is more than the {LARGEST:,} that a graph may hold")
        xs = [torch.zeros((2, *r.shape), device=device, dtype=self.dtype) for r in inputs]
        try:
            with torch.no_grad():
                y = op(*xs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(f"(N, {str(r.shape)[1:-1]})" for r in inputs)
            raise UnsupportedModel(
                f"{self.where or op.kind}: {op.kind} cannot be applied to {shapes}: {str(error).splitlines()[0]}",
                "Check that the file is complete and that the input shape is right.",
            ) from error
        if y.shape[0] != 2:
            raise self.unsupported("it does not keep the batch axis")
        return tuple(y.shape[1:])

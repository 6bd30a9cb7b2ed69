"""A model as a captured graph: nodes in topological order, one input, one output.

    v_input = x,   v_node = op(v_inputs…),   graph(x) = v_output

Tensors live in the operators, so a graph is a value: it never changes and never touches the user's module. It runs
in torch, batched and differentiable; intermediates are dropped after their last use, as the module itself would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saddlepoint.core.digests import digest_json, digest_tensors
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ops_base import Op, Shape


@dataclass(frozen=True, eq=False)
class Node:
    """`name` = op(*inputs), of shape (N, *shape)."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order. `input` names the graph's input, of shape (N, *input_shape)."""

    nodes: tuple[Node, ...]
    input: str
    output: str
    input_shape: Shape

    def __post_init__(self) -> None:
        known = {self.input}
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in known]
            if missing:
                raise InputError(
                    f"node {node.name} ({node.op.kind}) reads {missing[0]}, which no earlier node gives.",
                    "List the nodes in topological order.",
                )
            if node.name in known:
                raise InputError(f"two nodes are named {node.name}.", "Give every node its own name.")
            known.add(node.name)
        if self.output not in known:
            raise InputError(f"no node is named {self.output}, the graph's output.", "Name an existing node.")

    def __call__(self, x: Tensor) -> Tensor:
        """The model's output for x (N, *input_shape): (N, *output_shape)."""
        self._admit(x)
        registers: list[Any] = [None] * (len(self.nodes) + 1)
        registers[0] = x
        for out, (op, inputs, dead) in enumerate(self._program, start=1):
            registers[out] = op(*[registers[i] for i in inputs])
            for i in dead:
                registers[i] = None
        return registers[self._index[self.output]]

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Every value by name, the input included (keeps all of them in memory)."""
        self._admit(x)
        found = {self.input: x}
        for node in self.nodes:
            found[node.name] = node.op(*[found[name] for name in node.inputs])
        return found

    def to(self, target: torch.dtype | torch.device | str) -> Graph:
        """The graph in another floating type (`torch.float64`) or on another device (`"cuda"`)."""
        return replace(self, nodes=tuple(replace(n, op=n.op.to(target)) for n in self.nodes))

    def detached(self) -> Graph:
        """The graph with its tensors out of any computation of gradients."""
        nodes = []
        for n in self.nodes:
            held = {field: tensor.detach() for field, tensor in n.op.tensors().items()}
            nodes.append(replace(n, op=replace(n.op, **held)) if held else n)  # type: ignore[type-var]
        return replace(self, nodes=tuple(nodes))

    def node(self, name: str) -> Node:
        """The node of that name."""
        if name not in self._index or name == self.input:
            raise InputError(f"no node is named {name}.", "See graph.nodes for the names.")
        return self.nodes[self._index[name] - 1]

    def shape(self, name: str) -> Shape:
        """Shape of a value without the batch axis; `name` may be the input's."""
        return self.input_shape if name == self.input else self.node(name).shape

    @property
    def output_shape(self) -> Shape:
        """Shape of the output without the batch axis; (classes,) for a classifier."""
        return self.shape(self.output)

    def in_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Shapes of a node's inputs without the batch axis."""
        return tuple(self.shape(name) for name in node.inputs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Weights and constants as ("node.field", tensor)."""
        for node in self.nodes:
            for field, tensor in node.op.tensors().items():
                yield f"{node.name}.{field}", tensor

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the weights (torch's default where there are none)."""
        floating = (t.dtype for _, t in self.tensors() if t.is_floating_point())
        return next(floating, torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """The device of the weights (the CPU where there are none)."""
        return next((t.device for _, t in self.tensors()), torch.device("cpu"))

    @cached_property
    def digest(self) -> str:
        """Digest of structure and weights; names of nodes do not count, their order does."""
        structure: list[Any] = [list(self.input_shape), self._index[self.output]]
        tensors: dict[str, Tensor] = {}
        for i, node in enumerate(self.nodes, start=1):
            inputs = [self._index[name] for name in node.inputs]
            structure.append([node.op.kind, node.op.config(), inputs, list(node.shape)])
            tensors |= {f"{i}.{field}": t for field, t in node.op.tensors().items()}
        return digest_json({"structure": structure, "tensors": digest_tensors(tensors)})

    def __repr__(self) -> str:
        lines = [f"{self.input}: input {self.input_shape}"]
        for n in self.nodes:
            lines.append(f"{n.name}: {n.op.kind}({', '.join(n.inputs)}) {n.shape}")
        return "\n".join([*lines, f"output: {self.output}"])

    @cached_property
    def _index(self) -> dict[str, int]:
        """Register of every value: 0 for the input, 1 + position for a node."""
        return {self.input: 0} | {node.name: i for i, node in enumerate(self.nodes, start=1)}

    @cached_property
    def _program(self) -> list[tuple[Op, tuple[int, ...], tuple[int, ...]]]:
        """Per node: operator, registers read, registers that are dead afterwards."""
        keep = self._index[self.output]
        last: dict[int, int] = {}
        for i, node in enumerate(self.nodes, start=1):
            last[i] = i  # a node that nobody reads dies at once
            last |= {self._index[name]: i for name in node.inputs}
        program = []
        for i, node in enumerate(self.nodes, start=1):
            dead = tuple(r for r, when in last.items() if when == i and r != keep)
            program.append((node.op, tuple(self._index[name] for name in node.inputs), dead))
        return program

    def _admit(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.input_shape or x.dim() == 0:
            raise InputError(
                f"the input has shape {tuple(x.shape)}, the model takes (N, {str(self.input_shape)[1:-1]}).",
                "Put the batch axis first and reshape the rest.",
            )

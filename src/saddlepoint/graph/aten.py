"""Translates the nodes of an exported program into operators: constants fold, variables become nodes.

Before decomposition torch.export leaves in-place calls in the program. One is read as its functional form whose result
replaces the old value; where a *view* of the overwritten tensor is read afterwards the model is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from saddlepoint.core.errors import StochasticModel, UnsupportedModel
from saddlepoint.graph.aten_call import Call
from saddlepoint.graph.aten_rules import RULES
from saddlepoint.graph.builder import Builder, Ref, Value

READS_VALUES = frozenset({"aten.item", "aten._local_scalar_dense", "aten.is_nonzero"})
BATCH_FILLERS = frozenset(
    {
        "aten.expand",
        "aten.repeat",
        "aten.zeros",
        "aten.ones",
        "aten.full",
        "aten.new_zeros",
        "aten.new_ones",
        "aten.new_full",
    }
)

SIZED = frozenset(
    {"aten.view", "aten.reshape", "aten._unsafe_view", "aten.unflatten", "aten.expand", "aten.slice", "aten.flatten"}
)
"""Operators whose sizes may be the batch's: their result is read off the shape that torch.export recorded."""


@dataclass
class Translation:
    """The walk over one exported program.

    `constants` by placeholder name; `batch` is the batch axis' size or symbol.
    """

    builder: Builder
    constants: dict[str, Tensor]
    batch: Any

    def __post_init__(self) -> None:
        self.values: dict[str, Any] = dict(self.constants)
        self.values[self.builder.input.name] = self.builder.input
        self.same: dict[str, str] = {}  # in-place result -> the value it overwrites
        self.family: dict[str, set[str]] = {}  # value -> all values that share its memory
        self.stale: dict[str, str] = {}  # value -> the in-place node that overwrote its memory through another name

    def run(self, graph: fx.Graph, output: str) -> Value:
        """The value of the program's output."""
        for node in graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "get_attr":
                raise UnsupportedModel(
                    f"the program holds the attribute {node.target} (a sub-graph).", "Write the model without it."
                )
        return self._read(output)

    def _call(self, node: fx.Node) -> None:
        if not node.users and not _writes(node):
            return  # statistics and the like that nobody reads
        packet = str(getattr(node.target, "overloadpacket", node.target))
        self.builder.where = f"{packet} in {_layer(node)}"
        produced = node.meta.get("val")
        if packet in READS_VALUES:
            raise UnsupportedModel(
                f"{self.builder.where}: the model reads a tensor's value to choose its path or its sizes.",
                "Write it without .item() and without branches on values.",
            )
        if isinstance(produced, (int, float, bool, torch.SymInt)) or produced is None:
            self.values[node.name] = produced  # sizes and assertions about them
            return
        if packet == "<built-in function getitem>":
            source, index = node.args[0], node.args[1]
            result = self._read(source.name)[index]  # type: ignore[union-attr]
        elif _all_constant(arguments := self._arguments(node)):
            result = self._fold(node, packet, arguments)
        else:
            result = self._rule(node, packet, arguments, produced)
        self._track_memory(node)
        self.values[self._holder(node.name)] = result

    def _rule(self, node: fx.Node, packet: str, arguments: dict[str, Any], produced: Any) -> Any:
        name = packet.removesuffix("_") if _writes(node) else packet
        rule = RULES.get(name)
        if rule is None and _draws(node):
            raise self._random()
        if rule is None:
            raise self.builder.unsupported(f"the operator {packet} has no rule")
        if name not in SIZED and _mentions_symbol(arguments):
            raise self.builder.unsupported(f"{packet} computes with the batch size")
        return rule(Call(self.builder, arguments, self._shape(produced), node.name))

    def _fold(self, node: fx.Node, packet: str, arguments: dict[str, Any]) -> Any:
        """The value of a node whose inputs are constants; rows for the whole batch become one row."""
        target: Any = node.target
        if _draws(node):
            raise self._random()
        if _mentions_symbol(arguments):
            value = node.meta["val"]
            if packet not in BATCH_FILLERS or not self._is_batch(value.shape[0]):
                raise self.builder.unsupported(f"{packet} makes a constant that depends on the batch size")
            arguments = {k: _one_row(v) for k, v in arguments.items()}
        if _writes(node):
            arguments = {k: v.clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}
        schema = target._schema.arguments
        positional = [arguments[a.name] for a in schema if not a.kwarg_only]
        with torch.no_grad():
            return target(*positional, **{a.name: arguments[a.name] for a in schema if a.kwarg_only})

    def _random(self) -> StochasticModel:
        return StochasticModel(
            f"{self.builder.where}: the model draws random numbers.", "Evaluate it as a randomised defence."
        )

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """Arguments by name, defaults included, nodes replaced by their values."""
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            raise self.builder.unsupported(f"{node.target} is not an ATen operator")
        bound: dict[str, Any] = {}
        for i, argument in enumerate(schema.arguments):
            if argument.name in node.kwargs:
                given = node.kwargs[argument.name]
            elif i < len(node.args):
                given = node.args[i]
            else:
                given = argument.default_value
            bound[argument.name] = fx.map_arg(given, lambda n: self._read(n.name))
        return bound

    # -- memory: in-place results and views ----------------------------------------------------------------
    def _read(self, name: str) -> Any:
        holder = self._holder(name)
        if holder in self.stale:
            raise UnsupportedModel(
                f"{self.builder.where}: it reads memory that {self.stale[holder]} has overwritten through a view.",
                "Write the model without in-place operations on views.",
            )
        return self.values[holder]

    def _holder(self, name: str) -> str:
        """The name under which a value is kept: an in-place result lives in the tensor it overwrote."""
        while name in self.same:
            name = self.same[name]
        return name

    def _track_memory(self, node: fx.Node) -> None:
        source = next((a for a in node.args if isinstance(a, fx.Node)), None)
        if source is None:
            return
        holder = self._holder(source.name)
        family = self.family.setdefault(holder, {holder})
        if _writes(node):
            if holder in self.constants:
                raise UnsupportedModel(
                    f"{self.builder.where}: the model changes its own parameter or buffer when it is called.",
                    "A model with a state of its own gives no fixed margins: write the update out of forward.",
                )
            self.same[node.name] = holder
            self.stale |= {member: node.name for member in family if member != holder}
        elif _shares(node):
            family.add(node.name)
            self.family[node.name] = family

    # -- shapes --------------------------------------------------------------------------------------------
    def _is_batch(self, size: Any) -> bool:
        return str(size) == str(self.batch)

    def _shape(self, produced: Any) -> Any:
        """Shape of the result without the batch axis; of several results the first must have that axis in front."""
        if isinstance(produced, (list, tuple)):
            return [self._shape(produced[0]), *(tuple(p.shape[1:]) for p in produced[1:])]
        shape = tuple(produced.shape)
        if not shape or not self._is_batch(shape[0]) or not all(isinstance(s, int) for s in shape[1:]):
            raise self.builder.unsupported(
                f"its result of shape ({', '.join(str(s) for s in shape)}) mixes the samples of a batch"
            )
        return shape[1:]


def _layer(node: fx.Node) -> str:
    """The module that called the operator, as the user knows it."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "the model")
    short = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return f"layer {path} ({short.split('.')[-1]})" if path else "the model's forward"


def _writes(node: fx.Node) -> bool:
    """An in-place operator."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _shares(node: fx.Node) -> bool:
    """The result may share its memory with the first argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or "dropout" in schema.name:  # getitem of a split; dropout in evaluation returns its input
        return True
    return any(a.alias_info is not None for a in schema.arguments)


def _all_constant(value: Any) -> bool:
    if isinstance(value, Ref):
        return False
    if isinstance(value, dict):
        return all(_all_constant(v) for v in value.values())
    return not isinstance(value, (list, tuple)) or all(_all_constant(v) for v in value)


def _mentions_symbol(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_mentions_symbol(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(_mentions_symbol(v) for v in value)
    return isinstance(value, torch.SymInt)


def _one_row(value: Any) -> Any:
    """The batch size in a list of sizes becomes 1 (the caller has checked that it is the first size only)."""
    if isinstance(value, (list, tuple)):
        return [_one_row(v) for v in value]
    return 1 if isinstance(value, torch.SymInt) else value

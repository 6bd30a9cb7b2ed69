"""torch.export -> Graph, before decomposition and with a dynamic batch axis.

    module --torch.export--> ATen nodes --aten.RULES--> operators of the IR

Parameters, buffers and constants are lifted by torch.export; whatever depends only on them is folded here. A copy
of the module is exported, so the user's own keeps its flags, hooks and buffers. The result is compared with the module
before it is handed out, at a batch of one too.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from saddlepoint.core.errors import UnsupportedModel
from saddlepoint.graph.agreement import compare
from saddlepoint.graph.aten import Translation
from saddlepoint.graph.builder import Builder
from saddlepoint.graph.ir import Graph


def capture(module: nn.Module, example: Tensor) -> Graph:
    """The module in evaluation mode as a graph; `example` (b, *shape) is any valid input, b ≥ 1.

    Raises UnsupportedOperator (it names operator and layer), UnsupportedModel (data-dependent control flow, several
    inputs or outputs, samples that influence each other), ImporterDisagreement.
    """
    return capture_with_state(module, example)[0]


def capture_with_state(module: nn.Module, example: Tensor) -> tuple[Graph, dict[str, Tensor]]:
    """As `capture`; also the captured state by its names in the module, whose memory the graph's tensors share."""
    batch = (torch.cat([example] * 3)[: max(2, example.shape[0])]).detach()
    twin = _evaluating_copy(module)
    points = _points(batch)
    with torch.no_grad():
        try:
            expected = twin(points)
        except Exception as error:  # whatever the user's forward raises
            raise UnsupportedModel(
                f"the model fails on an input of shape {tuple(points.shape)}: {_first_line(error)}",
                "It must run on any number of samples of that shape, in the type of its weights.",
            ) from error
    with _quiet():
        try:
            exported = torch.export.export(
                twin, (batch,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
        except Exception as error:  # torch.export raises a dozen unrelated types
            raise UnsupportedModel(
                f"torch.export cannot capture the model: {_first_line(error)}",
                "Control flow that depends on values, or on the batch size, cannot become a graph; "
                "gradients and scores still work.",
            ) from error
    graph = _translate(exported)
    with torch.no_grad():
        compare(graph(points), expected, "the module")
        compare(graph(points[:1]), twin(points[:1]), "the module")
    return graph, {name: torch.as_tensor(tensor).detach() for name, tensor in exported.state_dict.items()}


def graph_of(exported: ExportedProgram) -> Graph:
    """The graph of a program that was exported before (a `.pt2` file), its batch axis made dynamic.

    It is compared with the program on random inputs, at the program's own batch size where that is fixed.
    """
    graph = _translate(exported)
    batch = _batch_of(exported)
    like = torch.zeros((batch, *graph.input_shape), dtype=graph.dtype, device=graph.device)
    draw = torch.Generator().manual_seed(batch)
    points = torch.rand(like.shape, generator=draw, dtype=like.dtype).to(like.device)
    with torch.no_grad(), _quiet():
        compare(graph(points), exported.module()(points), "the exported program")
    return graph


def _translate(exported: ExportedProgram) -> Graph:
    """ATen nodes to operators."""
    signature = exported.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise UnsupportedModel(
            f"the model takes {len(signature.user_inputs)} inputs and gives {len(signature.user_outputs)} outputs.",
            "A classifier takes one batch of inputs and gives one tensor of logits.",
        )
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise UnsupportedModel(
            "the model changes its own buffers or its input when it is called.",
            "Put it in evaluation mode, or write the update out of place.",
        )
    constants: dict[str, Tensor] = {}
    for spec in signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            target = str(spec.target)
            held = exported.state_dict if target in exported.state_dict else exported.constants
            constants[spec.arg.name] = torch.as_tensor(held[target]).detach()
        elif spec.kind != InputKind.USER_INPUT:
            raise UnsupportedModel(f"the model carries an input of kind {spec.kind.name}.", "Export tensors only.")
    name, value = _user_input(exported)
    shape = tuple(value.shape[1:])
    if value.dim() == 0 or not all(isinstance(size, int) for size in shape):
        raise UnsupportedModel(
            f"the exported input has shape {tuple(value.shape)}.", "Export with only the batch axis dynamic."
        )
    builder = Builder(shape, value.dtype, name)
    translation = Translation(builder, constants, batch=value.shape[0])
    return builder.graph(translation.run(exported.graph, str(next(iter(signature.user_outputs)))))


def _batch_of(exported: ExportedProgram) -> int:
    """A batch size that the program accepts: the exported one where it is fixed, else 3 or what it allows."""
    size = _user_input(exported)[1].shape[0]
    if isinstance(size, int):
        return size
    allowed = exported.range_constraints.get(size.node.expr)
    if allowed is None:
        return 3
    return int(min(max(3, int(allowed.lower)), allowed.upper))


def _user_input(exported: ExportedProgram) -> tuple[str, Tensor]:
    """Name and recorded (fake) value of the program's input."""
    name = str(next(iter(exported.graph_signature.user_inputs)))
    return name, next(n.meta["val"] for n in exported.graph.nodes if n.name == name)


def _evaluating_copy(module: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode."""
    if not isinstance(module, nn.Module):
        raise UnsupportedModel(
            f"a {type(module).__name__} is not a torch.nn.Module.", "Use from_callable for scores from any function."
        )
    try:
        return copy.deepcopy(module).eval()
    except Exception as error:  # a module's __deepcopy__ may raise anything
        raise UnsupportedModel(
            f"the model cannot be copied: {_first_line(error)}", "Keep only leaf tensors in its attributes."
        ) from error


def _points(example: Tensor) -> Tensor:
    """Inputs like the example, but not the example: three rows, uniform between its extremes."""
    low, high = example.min(), example.max()
    draw = torch.Generator().manual_seed(example.shape[0])
    mix = torch.rand((3, *example.shape[1:]), generator=draw, dtype=example.dtype).to(example.device)
    return low + mix * torch.where(high > low, high - low, torch.ones_like(high))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch.export's own deprecation warnings, log pages and prints to itself; its errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

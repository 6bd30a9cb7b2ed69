"""Traps 8 and 11 of the verification reference: an importer's error, or a NaN, must never pass as agreement."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nets import NETS, settled

from paths import SHARED
from saddlepoint.core.errors import ImporterDisagreement, NonFinite
from saddlepoint.geometry.box import Box
from saddlepoint.graph import ops
from saddlepoint.graph.agreement import agree, agree_with_onnxruntime, domain_points
from saddlepoint.graph.capture import capture
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.onnx_reader import read_onnx

PATH = SHARED / "models/cifar10_resnet20_standard.onnx"


def changed(graph, kind, change):
    """The graph with its first operator of that kind changed."""
    done = False
    nodes = []
    for node in graph.nodes:
        if node.op.kind == kind and not done:
            node, done = replace(node, op=change(node.op)), True
        nodes.append(node)
    assert done
    return replace(graph, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Conv2d", lambda op: replace(op, bias=op.bias + 0.01)),
        ("Conv2d", lambda op: replace(op, weight=op.weight.flip(2))),
        ("Pad", lambda op: replace(op, pads=(*op.pads[:4], op.pads[5] + 1, op.pads[4] - 1))),
        ("Slice", lambda op: replace(op, start=1, stop=op.stop + 1)),
        ("Linear", lambda op: replace(op, weight=op.weight.roll(1, 0))),
        ("Relu", lambda op: ops.LeakyRelu(0.05)),
    ],
)
def test_a_wrong_reading_is_refused(kind, change):
    graph = read_onnx(PATH)
    assert agree_with_onnxruntime(graph, PATH, Box(0, 1)) < 1e-4
    with pytest.raises(ImporterDisagreement, match="differ by"):
        agree_with_onnxruntime(changed(graph, kind, change), PATH, Box(0, 1))


def test_nan_on_either_side_is_refused():
    graph = Graph((Node("a", ops.Relu(), ("x",), (3,)),), "x", "a", (3,))
    with pytest.raises(NonFinite):
        agree(graph, lambda x: x * float("nan"), Box(0, 1))
    ours = Graph((Node("a", ops.Elementwise("Log"), ("x",), (3,)),), "x", "a", (3,))
    with pytest.raises(ImporterDisagreement):
        agree(ours, torch.relu, Box(-1, 1))


def test_another_output_shape_is_refused():
    graph = Graph((Node("a", ops.Relu(), ("x",), (3,)),), "x", "a", (3,))
    with pytest.raises(ImporterDisagreement, match="shape"):
        agree(graph, lambda x: x[:, :2], Box(0, 1))


def test_a_difference_on_a_corner_alone_is_found():
    graph = Graph((Node("a", ops.Reshape((3,)), ("x",), (3,)),), "x", "a", (3,))
    for corner in (0.0, 1.0):
        with pytest.raises(ImporterDisagreement):
            agree(graph, lambda x, at=corner: x + (x == at).all(1, keepdim=True) * 0.01, Box(0, 1))


def test_points_are_corners_middle_and_inside():
    box = Box((0.0, -1.0), (1.0, 3.0))
    x = domain_points(box, (2, 4, 4), points=5)
    lower = torch.tensor([0.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    upper = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert x.shape == (13, 2, 4, 4)
    assert x.dtype == torch.float32
    assert torch.equal(x[:1], lower)
    assert torch.equal(x[1:2], upper)
    assert torch.allclose(x[2:3], (lower + upper) / 2)
    assert bool(((x[3:8] == lower) | (x[3:8] == upper)).all())
    assert bool(((x >= lower) & (x <= upper)).all())
    assert torch.equal(x, domain_points(box, (2, 4, 4), points=5))
    assert bool(torch.isfinite(domain_points(Box(float("-inf"), float("inf")), (3,))).all())


def test_capture_and_onnx_of_one_network_agree():
    net = settled(NETS["resnet20"][0]())
    state = torch.load(PATH.with_suffix(".pt"), weights_only=True)
    own, theirs = net.state_dict(), list(state.get("state_dict", state).values())
    slots = [k for k in own if k not in ("mean", "std")]
    assert len(slots) == len(theirs)
    net.load_state_dict({**own, **dict(zip(slots, theirs, strict=True))})
    ours, read = capture(net, torch.rand(2, 3, 32, 32)), read_onnx(PATH)
    x = torch.rand(8, 3, 32, 32)
    z = x if _is_raw(read) else (x - net.mean) / net.std
    assert torch.allclose(ours(x), read(z), atol=1e-3)


def _is_raw(graph):
    return any(n.op.kind in ("AddConstant", "DivConstant") for n in graph.nodes)

"""torch.export -> Graph: equal to the module at any batch; what cannot be a graph is refused by name."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import NETS, Attention, lenet, mlp, settled
from torch import nn

from saddlepoint.core.errors import (
    ImporterDisagreement,
    NonFinite,
    StochasticModel,
    UnsupportedModel,
    UnsupportedOperator,
)
from saddlepoint.geometry.box import Box
from saddlepoint.graph import ops
from saddlepoint.graph.agreement import agree
from saddlepoint.graph.capture import capture, graph_of


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("example", [1, 4])
def test_capture_equals_the_module_at_any_batch(name, example):
    make, shape = NETS[name]
    net = settled(make())
    graph = capture(net, torch.rand(example, *shape))
    for batch in (1, 7):
        x = torch.rand(batch, *shape)
        assert torch.equal(graph(x), net(x))
    assert agree(graph, net, Box(0, 1)) == 0.0


def test_captured_gradients_equal_the_modules():
    net = settled(lenet())
    graph = capture(net, torch.rand(2, 1, 12, 12))
    x = torch.rand(3, 1, 12, 12, requires_grad=True)
    (ours,), (theirs,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (graph, net))
    assert torch.equal(ours, theirs)


def test_the_module_comes_back_untouched():
    net = settled(lenet())
    net.train()
    net[4].eval()
    flags = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    tensors = {k: id(v) for k, v in net.named_parameters()}
    capture(net, torch.rand(1, 1, 12, 12))
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert {k: id(v) for k, v in net.named_parameters()} == tensors
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_graph_does_not_follow_later_training():
    net = settled(mlp())
    graph = capture(net, torch.rand(2, 3, 2, 2))
    before = graph(torch.ones(1, 3, 2, 2))
    with torch.no_grad():
        net[1].weight.zero_()
    assert torch.equal(graph(torch.ones(1, 3, 2, 2)), before)


def test_two_captures_have_one_digest():
    net = settled(Attention())
    assert capture(net, torch.rand(2, 3, 8)).digest == capture(net, torch.rand(5, 3, 8)).digest


def test_resnet_shortcut_becomes_slices_and_a_pad():
    net = settled(NETS["resnet20"][0]())
    kinds = [n.op.kind for n in capture(net, torch.rand(2, 3, 32, 32)).nodes]
    assert kinds.count("Pad") == 2
    assert kinds.count("Slice") == 4
    assert kinds.count("Add") == 9


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("decomposed", [False, True])
def test_saved_programs_load_with_dynamic_and_fixed_batch(batch, decomposed):
    net = settled(lenet())
    dynamic = ({0: torch.export.Dim.DYNAMIC},) if batch is None else None
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own tree utilities
        program = torch.export.export(net, (torch.rand(batch or 2, 1, 12, 12),), dynamic_shapes=dynamic)
        if decomposed:
            program = program.run_decompositions()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file)
    graph = graph_of(loaded)
    x = torch.rand(7, 1, 12, 12)
    assert torch.allclose(graph(x), net(x), atol=1e-6)


class Fn(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.fn(self, x)


def _in_place_on_view(self, x):
    y = x * 2
    y[:, :2].relu_()
    return y


def _read_after_overwrite(self, x):
    y = x * 2
    view = y.view(-1, 3)
    y.relu_()
    return view


def _counting(self, x):
    self.calls += 1
    return x * self.calls


def _attribute(self, x):
    self.seen = getattr(self, "seen", 0) + 1
    return x * self.seen


REFUSED = {
    "branch on values": (lambda s, x: x * 2 if x.sum() > 0 else x, UnsupportedModel, "data-dependent"),
    "item": (lambda s, x: x[:, : int(x.sum().item())], UnsupportedModel, "data-dependent"),
    "numpy": (lambda s, x: torch.tensor(x.detach().numpy()), UnsupportedModel, "numpy"),
    "fixed batch": (lambda s, x: x.view(2, -1), UnsupportedModel, "shape"),
    "unknown operator": (lambda s, x: torch.cumsum(x, 1), UnsupportedOperator, r"aten\.cumsum"),
    "batch mean": (lambda s, x: x - x.mean(0, keepdim=True), UnsupportedOperator, "mixes the samples"),
    "mean of all": (lambda s, x: x - x.mean(), UnsupportedOperator, "mixes the samples"),
    "flattened batch": (lambda s, x: x.reshape(-1), UnsupportedOperator, "mixes the samples"),
    "softmax over samples": (lambda s, x: x.softmax(0), UnsupportedOperator, "batch axis"),
    "one sample for all": (lambda s, x: x - x[:1], UnsupportedOperator, "samples"),
    "batch size as a number": (lambda s, x: x * x.shape[0], UnsupportedOperator, "batch size"),
    "batch statistics": (
        lambda s, x: F.batch_norm(x, None, None, training=True),
        UnsupportedOperator,
        "batch statistics",
    ),
    "noise": (lambda s, x: x + torch.randn(3), StochasticModel, "random"),
    "noise like x": (lambda s, x: x + torch.rand_like(x), StochasticModel, "random"),
    "dropout on": (lambda s, x: F.dropout(x, 0.5), StochasticModel, "dropout"),
    "two outputs": (lambda s, x: (x, x * 2), UnsupportedModel, "2 outputs"),
    "in place on a view": (_in_place_on_view, UnsupportedModel, "overwritten"),
    "view read after": (_read_after_overwrite, UnsupportedModel, "overwritten"),
    "counts its calls": (_counting, UnsupportedModel, "changes its own"),
    "counts in Python": (_attribute, ImporterDisagreement, "differ"),
    "NaN": (lambda s, x: x * float("nan"), NonFinite, "NaN"),
    "constant": (lambda s, x: torch.ones(2, 3), UnsupportedModel, "does not depend"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason_in_one_line(name, capfd):
    fn, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as caught:
        capture(Fn(fn), torch.rand(2, 3) + 0.1)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert capfd.readouterr() == ("", "")  # torch.export's own pages stay out of the user's terminal


def test_the_refusal_names_the_layer():
    with pytest.raises(UnsupportedOperator, match=r"aten\.hardshrink in layer 1 \(Hardshrink\)"):
        capture(nn.Sequential(nn.Linear(3, 3), nn.Hardshrink()), torch.rand(2, 3))


def test_in_place_on_the_input_does_not_change_it():
    graph = capture(Fn(lambda s, x: x.sub_(1).relu_() + x), torch.rand(2, 3))
    x = torch.full((2, 3), 3.0)
    assert torch.equal(graph(x), torch.full((2, 3), 4.0))
    assert torch.equal(x, torch.full((2, 3), 3.0))


def test_constants_fold():
    graph = capture(Fn(lambda s, x: x @ (torch.eye(3) * 2).t() + torch.zeros(3).exp()), torch.rand(2, 3))
    assert [type(n.op) for n in graph.nodes] == [ops.Linear]
    assert torch.equal(graph.nodes[0].op.bias, torch.ones(3))


def test_float64_modules_stay_float64():
    net = settled(lenet()).double()
    graph = capture(net, torch.rand(2, 1, 12, 12, dtype=torch.float64))
    assert graph.dtype == torch.float64


def test_something_else_than_a_module_is_refused():
    with pytest.raises(UnsupportedModel, match="function"):
        capture(lambda x: x, torch.rand(2, 3))


def test_even_kernels_of_padding_same_pad_behind():
    net = nn.Conv2d(2, 3, (2, 4), padding="same").eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own, about a padded copy
        graph = capture(net, torch.rand(2, 2, 5, 5))
        x = torch.rand(3, 2, 5, 5)
        assert torch.allclose(graph(x), net(x), atol=1e-6)
    assert [n.op.kind for n in graph.nodes] == ["Pad", "Conv2d"]


def test_an_example_of_the_wrong_shape_is_named():
    with pytest.raises(UnsupportedModel, match=r"\(3, 2, 5, 5\)"):
        capture(settled(lenet()), torch.rand(1, 2, 5, 5))


def test_overwritten_memory_is_read_in_its_new_state():
    def forward(self, x):
        y = x * 2
        y.relu_()
        y += 1
        return y.view(-1, 3) * y

    net = Fn(forward)
    x = torch.randn(4, 3)
    assert torch.equal(capture(net, x)(x), net(x))

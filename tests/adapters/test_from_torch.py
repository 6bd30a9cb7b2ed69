"""`from_torch`: what is found out about a module, and that the module itself stays as it was."""

import copy
import dataclasses
import enum
import functools
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from paths import SHARED
from saddlepoint import adapters
from saddlepoint.core.errors import InputError, NonFinite, UnsupportedModel
from saddlepoint.geometry import Box
from saddlepoint.spec import Access


class Head(nn.Module):
    """A small network whose output goes through `last`."""

    def __init__(self, classes=3, last=None, features=5):
        super().__init__()
        self.a = nn.Linear(features, 8)
        self.b = nn.Linear(8, classes)
        self.last = last or (lambda z: z)

    def forward(self, x):
        return self.last(self.b(torch.relu(self.a(x))))


@pytest.fixture
def x():
    return torch.rand(6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def weights():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def said(model, text):
    return any(text in note for note in model.notes)


def test_logits_reach_graph_access_and_agree(x):
    net = Head()
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    assert model.access == Access.GRAPH
    assert model.classes == 3
    assert torch.equal(model(x), net(x))
    assert torch.allclose(model.graph(x), net(x), atol=1e-6)


def test_normalisation_belongs_to_the_model():  # trap 49: eps lives in raw input space
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    model = adapters.from_torch(net, (0, 1), mean=mean, std=std, shape=(3, 8, 8))
    x = torch.rand(4, 3, 8, 8)
    by_hand = net((x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    assert torch.allclose(model(x), by_hand, atol=1e-6)
    assert torch.allclose(model.graph(x), by_hand, atol=1e-5)
    assert model.digest != adapters.from_torch(net, (0, 1), shape=(3, 8, 8)).digest
    x.requires_grad_(True)
    (g,) = torch.autograd.grad(model(x).sum(), x)
    (h,) = torch.autograd.grad(by_hand.sum(), x, allow_unused=True)
    assert h is None
    assert bool(g.any())


@pytest.mark.parametrize(("mean", "std"), [((0.1, 0.2), 1.0), (0.0, 0.0), (0.0, (1.0, -1.0, 1.0))])
def test_bad_normalisation_is_refused(mean, std):
    with pytest.raises(InputError):
        adapters.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (0, 1), mean=mean, std=std, shape=(3, 2, 2))


def test_the_module_is_not_mutated_and_the_snapshot_is_fixed(x):  # traps 1, 6, 13
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    net[3].eval()  # flags differ within the module
    modes = [m.training for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    z = model(x)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert said(model, "train mode")
    assert torch.equal(z, copy.deepcopy(net).eval()(x))
    with torch.no_grad():
        net[0].weight.add_(1.0)
    assert torch.equal(model(x), z)
    mark = model.digest
    assert adapters.from_torch(net, (0, 1), shape=(5,)).digest != mark


def test_a_live_view_follows_training_and_restores_flags(x):
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    net[1].eval()
    model = adapters.from_torch(net, (0, 1), shape=(5,), live=True)
    modes = [m.training for m in net.modules()]
    statistics = net[1].running_mean.clone()
    first = model(x)
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad for p in net.parameters())
    assert torch.equal(net[1].running_mean, statistics)
    with torch.no_grad():
        net[3].bias.add_(1.0)
    assert torch.allclose(model(x), first + 1)
    point = x.clone().requires_grad_(True)
    torch.autograd.grad(model(point).sum(), point)
    assert all(p.grad is None for p in net.parameters())
    assert model.graph is None
    assert said(model, "live view")


def test_a_live_view_restores_flags_when_the_call_fails():
    net = Head().train()
    model = adapters.from_torch(net, (0, 1), shape=(5,), live=True)
    with pytest.raises(RuntimeError):
        model(torch.rand(2, 4))
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_what_cannot_be_copied_is_refused_with_the_remedy():
    class Stubborn(Head):
        def __deepcopy__(self, memo):
            raise RuntimeError("holds a socket")

    with pytest.raises(UnsupportedModel, match="live=True"):
        adapters.from_torch(Stubborn(), (0, 1), shape=(5,))
    assert adapters.from_torch(Stubborn(), (0, 1), shape=(5,), live=True).classes == 3


@pytest.mark.parametrize("squeeze", [False, True])
def test_one_logit_becomes_two_columns(x, squeeze):
    net = Head(1, (lambda z: z[:, 0]) if squeeze else None)
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    z = net(x).reshape(-1)
    assert model.classes == 2
    assert torch.equal(model(x), torch.stack([-z / 2, z / 2], 1))
    assert model.access == Access.GRAPH
    assert torch.allclose(model.graph(x), model(x), atol=1e-6)
    assert said(model, "one logit")


@pytest.mark.parametrize("last", [lambda z: z.softmax(1), lambda z: z.log_softmax(1)])
def test_a_final_softmax_is_left_out_and_margins_stay(x, last):
    net = Head(4, last)
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    log_p = net(x) if float(net(x).detach().max()) <= 0 else net(x).log()
    differences = model(x) - log_p
    assert torch.allclose(differences, differences[:, :1].expand(-1, 4), atol=1e-5)  # one number per row
    assert model.access == Access.GRAPH
    assert said(model, "final softmax")


def test_one_probability_becomes_log_odds(x):
    net = Head(1, torch.sigmoid)
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    p = net(x)[:, 0].double()
    z = model(x).double()
    assert torch.allclose(z[:, 1] - z[:, 0], torch.log(p / (1 - p)), atol=1e-5)
    assert said(model, "one probability")


def test_softmax_is_detected_on_real_batches_not_on_ones(x):  # trap 11
    # sums to 1 on an all-ones input only: logits all the same
    net = nn.Linear(5, 2)
    with torch.no_grad():
        net.weight.fill_(0.1)
        net.bias.zero_()
    assert not said(adapters.from_torch(net, (0, 1), shape=(5,)), "probabilities")
    # probabilities behind a computation that cannot be captured: log p, gradients only
    hidden = Head(3, lambda z: z.softmax(1) if float(z.detach().sum()) < 1e9 else z)
    model = adapters.from_torch(hidden, (0, 1), shape=(5,))
    assert said(model, "probabilities")
    assert model.access == Access.GRADIENT
    assert torch.allclose(model(x), hidden(x).log(), atol=1e-6)


def test_small_logits_are_no_probabilities():
    net = nn.Linear(5, 1)
    with torch.no_grad():
        net.weight.fill_(0.05)
        net.bias.fill_(0.4)  # stays in [0, 1] over the whole domain
    assert said(adapters.from_torch(net, (0, 1), shape=(5,)), "one logit")


def test_control_flow_drops_to_gradient_with_the_reason():
    net = Head(3, lambda z: z * 2 if float(z.detach().sum()) < 1e9 else z)
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    assert model.access == Access.GRADIENT
    assert model.graph is None
    assert said(model, "access GRADIENT")


@pytest.mark.parametrize("last", [torch.round, lambda z: z.detach() * 1.0, lambda z: z * 0 + z.detach()])
def test_no_usable_gradient_drops_to_scores_with_the_reason(last):
    model = adapters.from_torch(Head(3, last), (0, 1), shape=(5,))
    assert model.access == Access.SCORES
    assert said(model, "access SCORES: no gradient")


def test_a_backward_pass_that_raises_drops_to_scores():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

        @staticmethod
        def backward(ctx, g):
            raise ValueError("no backward here")

    model = adapters.from_torch(Head(3, Broken.apply), (0, 1), shape=(5,))
    assert model.access in (Access.SCORES, Access.GRAPH)
    if model.access == Access.GRAPH:  # the captured graph leaves the identity out and is differentiable itself
        pytest.fail("an autograd function was captured without its backward")
    assert said(model, "no backward here")


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_a_rare_coincidence_does_not_make_a_random_network_deterministic(draw):
    net = Head(3, lambda z: z + (draw() < 0.15))  # three calls agree in six cases of ten
    assert all(adapters.from_torch(net, (0, 1), shape=(5,)).stochastic for _ in range(8))


def test_random_numbers_without_effect_are_told():
    model = adapters.from_torch(Head(3, lambda z: z + 0 * torch.rand(())), (0, 1), shape=(5,))
    assert not model.stochastic
    assert said(model, "draws random numbers")


def test_randomness_between_calls_is_found_and_explained():
    net = Head(3, lambda z: z + 0.1 * torch.randn_like(z))
    state = torch.random.get_rng_state()
    model = adapters.from_torch(net, (0, 1), shape=(5,))
    assert model.stochastic
    assert model.access == Access.GRADIENT
    assert said(model, "two calls on one input differ")
    assert torch.equal(torch.random.get_rng_state(), state)  # global generators are put back


def test_labels_only():
    model = adapters.adapt(Head(3, lambda z: z.argmax(1)), (0, 1), adapters.Ways(shape=(5,), classes=3))
    assert model.access == Access.LABEL
    assert model(torch.rand(4, 5)).sum(1).tolist() == [1.0] * 4
    with pytest.raises(InputError, match="classes="):
        adapters.from_torch(Head(3, lambda z: z.argmax(1)), (0, 1), shape=(5,))


def test_outputs_that_depend_on_the_batch_are_said():
    model = adapters.from_torch(Head(3, lambda z: z - z.mean(0)), (0, 1), shape=(5,))
    assert said(model, "rest of the batch")
    assert model.graph is None  # samples that influence each other have no bound of their own


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (lambda z: {"boxes": z, "labels": z}, "dictionary"),
        (lambda z: [z, z], "2 things"),
        (lambda z: z[:, :, None, None].expand(-1, -1, 4, 4), "segmentation"),
        (lambda z: z[:, None], "returns shape"),
        (lambda z: z[:1], "for 1[0-9] inputs"),
        (lambda z: z.sum(), "returns shape"),
        (lambda z: z.to(torch.complex64), "complex"),
        (lambda z: z.long(), "int64 scores"),
        (lambda z: "cat", "str"),
    ],
)
def test_other_tasks_are_refused(last, says):
    with pytest.raises(UnsupportedModel, match=says):
        adapters.from_torch(Head(3, last), (0, 1), shape=(5,))


def test_nan_logits_are_refused():  # trap 5
    net = Head()
    with torch.no_grad():
        net.b.bias[1] = float("nan")
    with pytest.raises(NonFinite, match="NaN"):
        adapters.from_torch(net, (0, 1), shape=(5,))


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(UnsupportedModel, match="3 classes, 10"):
        adapters.adapt(Head(), (0, 1), adapters.Ways(shape=(5,), classes=10))


def test_the_domain_must_be_given():
    with pytest.raises(InputError, match="domain"):
        adapters.from_torch(Head(), None, shape=(5,))
    box = Box((0.0, -1.0, -2.0), (1.0, 1.0, 0.0))
    model = adapters.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), box, shape=(3, 2, 2))
    assert model.domain is box
    assert adapters.from_torch(Head(), ("0", "255/255"), shape=(5,)).domain.upper == (1.0,)


def test_the_input_shape_is_found_where_it_is_clear():
    assert adapters.from_torch(Head(), (0, 1)).shape == (5,)
    assert adapters.from_torch(adapters.build("wk17"), (0, 1)).shape == (1, 28, 28)
    with pytest.raises(InputError, match="shape="):
        adapters.from_torch(adapters.build("resnet20"), (0, 1))
    example = torch.rand(2, 1, 28, 28)
    assert adapters.from_torch(adapters.build("wk17"), (0, 1), shape=example).shape == (1, 28, 28)
    with pytest.raises(UnsupportedModel, match="shape="):
        adapters.from_torch(Head(), (0, 1), shape=(6,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_deployed_precision_is_kept(dtype):
    net = Head().to(dtype)
    x = torch.rand(4, 5)
    model = adapters.from_torch(net, (0, 1), shape=(5,), mean=0.5, std=2.0)
    assert torch.equal(model(x).to(dtype), net((x.to(dtype) - 0.5) / 2))
    assert model(x).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_the_digest_names_weights_settings_and_code():
    net = Head()
    mark = adapters.from_torch(net, (0, 1), shape=(5,)).digest
    assert adapters.from_torch(copy.deepcopy(net), (0, 1), shape=(5,), name="other").digest == mark

    class Doubled(Head):
        def forward(self, x):
            return 2 * super().forward(x)

    twin = Doubled()
    twin.load_state_dict(net.state_dict())
    assert adapters.from_torch(twin, (0, 1), shape=(5,)).digest != mark
    leaky = [adapters.from_torch(nn.Sequential(net, nn.LeakyReLU(s)), (0, 1), shape=(5,)).digest for s in (0.1, 0.2)]
    assert len({mark, *leaky}) == 3


def test_convolutions_are_laid_out_channels_last_where_the_network_allows_it():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 3)

        def forward(self, x):
            z = self.conv(x)
            return self.head(z.view(len(z), -1))  # fails on channels-last activations

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for net, changed in ((plain, True), (Views(), False)):
        weight = next(net.parameters())
        model = adapters.from_torch(net, (0, 1), shape=(3, 8, 8))
        own = next(p for p in model.fn.module.parameters() if p.ndim == 4)
        assert own.is_contiguous(memory_format=torch.channels_last) is changed
        assert weight.is_contiguous()  # the caller's module is left as it was
        torch.testing.assert_close(model(x), net(x).detach(), atol=1e-5, rtol=1e-5)


class Mode(enum.Enum):
    UP = 1
    DOWN = 2


@dataclasses.dataclass
class Setting:
    t: object


def stepped(t, z):
    return z * t


def scaled(t):
    return lambda z: z * t


SETTINGS = {
    "number": (1, -1),
    "kinds": (1, 1.0),
    "nested": ([1, [2, (3, None)]], [1, [2, (4, None)]]),
    "dictionary": ({"t": 1, "s": [0]}, {"t": -1, "s": [0]}),
    "set": ({1, "a"}, {1, "b"}),
    "array": (np.ones(3), -np.ones(3)),
    "objects": (np.array([None, 1], dtype=object), np.array([None, 2], dtype=object)),
    "tensor": ([torch.ones(3)], [-torch.ones(3)]),
    "enum": (Mode.UP, Mode.DOWN),
    "dataclass": (Setting({"a": 1}), Setting({"a": 2})),
    "called": (lambda z: torch.relu(z), lambda z: torch.tanh(z)),
    "constant": (lambda z: z * 2, lambda z: z * 3),
    "default": (lambda z, t=1: z * t, lambda z, t=2: z * t),
    "closure": (scaled(1), scaled(2)),
    "partial": (functools.partial(stepped, 1), functools.partial(stepped, 2)),
    "network": tuple([nn.LeakyReLU(t)] for t in (0.1, 0.2)),
}


def kept(net, value, name):
    twin = copy.deepcopy(net)
    setattr(twin, name, value)
    return adapters.from_torch(twin, (0, 1), shape=(5,)).digest


@pytest.mark.parametrize("name", ["t", "_t"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_the_digest_tells_settings_apart_by_content(kind, name):
    net, (one, other) = Head(last=nn.Identity()), SETTINGS[kind]
    assert kept(net, one, name) == kept(net, one, name) != kept(net, other, name)


def test_a_sign_kept_in_a_private_attribute_changes_the_digest(x):
    class Signed(nn.Module):
        def __init__(self, t):
            super().__init__()
            self.l, self._t = nn.Linear(5, 3), t

        def forward(self, x):
            return self.l(x) * self._t

    plus, minus = Signed(1), Signed(-1)
    minus.load_state_dict(plus.state_dict())
    plus, minus = (adapters.from_torch(net, (0, 1), shape=(5,)) for net in (plus, minus))
    assert torch.equal(plus(x), -minus(x))
    assert plus.digest != minus.digest


def test_the_order_of_a_dictionary_and_a_circle_do_not_matter():
    net = Head(last=nn.Identity())
    assert kept(net, {"a": 1, 2: "b"}, "t") == kept(net, {2: "b", "a": 1}, "t")
    circle = [1]
    circle.append(circle)
    assert kept(net, circle, "t") != kept(net, [1, 1], "t")
    net.outer = [net]  # a module that knows itself
    assert kept(net, 1, "t") == kept(net, 1, "t")


ALONE = """
import functools, torch
from torch import nn
from saddlepoint import adapters

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(5, 3)
        self._names = {"a", "b", "c", ("d", 1)}
        self._f = [lambda z: z in {"p", "q", "r"}, functools.partial(print, object()), object(), torch.relu, iter]
        self._hidden = [nn.Linear(2, 2)]

    def forward(self, x):
        return self.l(x)

torch.manual_seed(0)
print(adapters.from_torch(Net(), (0, 1), shape=(5,)).digest)
"""


def test_the_digest_is_the_same_in_every_process():
    marks = {
        subprocess.run(
            [sys.executable, "-c", ALONE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(marks) == 1
    assert len(marks.pop().strip()) == 64


def lenet():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.mark.parametrize("kind", ["pt", "pt2", "onnx"])
def test_two_loads_of_a_file_have_one_digest(tmp_path, kind):
    spec, options = tmp_path / f"m.{kind}", adapters.LoadOptions(domain=(0, 1))
    if kind == "pt":
        torch.save(lenet().state_dict(), spec)
        options = dataclasses.replace(options, arch=f"{__name__}:lenet", shape=(1, 8, 8))
    elif kind == "pt2":
        torch.export.save(torch.export.export(lenet(), (torch.zeros(2, 1, 8, 8),)), spec)
    else:
        spec = SHARED / "models" / "onnx" / "Convnet_avgpool.onnx"
    assert adapters.load(str(spec), options).digest == adapters.load(str(spec), options).digest

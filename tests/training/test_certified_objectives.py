"""Certified objectives: closed forms, soundness over the set, limits that coincide, gradients by the weights."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import saddlepoint as sp
from saddlepoint.bound import Interval, WongKolter
from saddlepoint.bound.backward import Walker
from saddlepoint.bound.enclose import Encloser
from saddlepoint.bound.interval import propagate, region_of, tail
from saddlepoint.bound.wong_kolter import Dual
from saddlepoint.core.errors import InputError, NotAvailable, UnsupportedModel
from saddlepoint.core.rng import Draws, row_keys
from saddlepoint.data import load
from saddlepoint.graph.capture import capture
from saddlepoint.graph.live import live_graph, state_of
from saddlepoint.spec import margin_matrix
from saddlepoint.training import Adversarial, Trainer, fresh, train
from saddlepoint.training.certified import IBP, MTLIBP, SABR, CrownIBP, DualLoss, interval_initialised
from saddlepoint.training.certified.crown_ibp import Backward, fused_loss
from saddlepoint.training.certified.passes import clean_pass, robust_cross_entropy
from saddlepoint.training.certified.warmup import regulariser
from saddlepoint.training.certified.wong_kolter import estimated_layers

UNIT = sp.Box(0.0, 1.0)
BALL = sp.Linf("0.1", box=UNIT)


def _mlp(seed: int = 0, inputs: int = 6, hidden: int = 9, classes: int = 4) -> nn.Module:
    layers = nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    return fresh(nn.Sequential(*layers).double(), seed)


def _conv(norm: bool) -> nn.Module:
    middle = [nn.BatchNorm2d(5)] if norm else []
    layers = nn.Conv2d(1, 5, 3, stride=2, padding=1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)
    return fresh(nn.Sequential(*layers).double(), 2)


def _batch(seed: int, shape: tuple[int, ...], n: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, Draws]:
    draws = Draws(row_keys(seed, [str(i) for i in range(n)], "test"))
    return draws.uniform(shape, 1, torch.float64), draws.integers((), classes, 2), draws


OBJECTIVES = {
    "ibp": IBP(BALL),
    "crown-ibp": CrownIBP(BALL, beta=0.5),
    "sabr": SABR(BALL, steps=3),
    "mtl-ibp": MTLIBP(BALL, steps=3),
    "dual": DualLoss(BALL, projections=0),
    "dual-projected": DualLoss(BALL, projections=8),
}


def test_interval_loss_of_a_linear_network_is_the_exact_worst_case_of_each_margin() -> None:
    net = fresh(nn.Linear(6, 4).double(), 1)
    x, y, draws = _batch(0, (6,))
    for ball, dual in ((sp.Linf("0.1"), lambda w: w.abs().sum(-1)), (sp.L2("0.1"), lambda w: w.norm(dim=-1))):
        w = (margin_matrix(y, 4, torch.float64) @ net.weight).detach()
        rows = margin_matrix(y, 4, torch.float64)
        lower = (rows @ net(x).unsqueeze(2)).squeeze(2) - 0.1 * dual(w)  # T1: support of a ball is the dual norm
        expected = robust_cross_entropy(lower)
        assert IBP(ball, kappa=0.0)(net, x, y, draws).item() == pytest.approx(expected.item(), rel=1e-10)


def test_the_interval_loss_is_that_of_the_bound_module() -> None:
    net = _conv(False)
    x, y, draws = _batch(1, (1, 8, 8))
    lower = Interval()(capture(net, x), BALL, x, margin_matrix(y, 4, torch.float64)).lower
    assert IBP(BALL, kappa=0.0)(net, x, y, draws).item() == pytest.approx(robust_cross_entropy(lower).item(), rel=1e-12)


def test_the_exact_dual_loss_is_that_of_the_bound_module() -> None:
    net = _conv(False)
    x, y, draws = _batch(1, (1, 8, 8))
    lower = WongKolter()(capture(net, x), BALL, x, margin_matrix(y, 4, torch.float64)).lower
    found = DualLoss(BALL, projections=0)(net, x, y, draws)
    assert found.item() == pytest.approx(robust_cross_entropy(lower).item(), rel=1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from(["0.02", "0.1", "0.4"]))
def test_every_bound_is_above_the_loss_anywhere_in_the_set(seed: int, size: str) -> None:
    net, ball = _mlp(seed), sp.Linf(size, box=UNIT)
    x, y, draws = _batch(seed, (6,))
    bounds = [
        objective(net, x, y, draws)
        for objective in (IBP(ball, kappa=0.0), CrownIBP(ball, kappa=0.0, beta=1.0), DualLoss(ball, projections=0))
    ]
    found = functional.cross_entropy(net(x), y)
    for turn in range(20):
        keys = Draws(row_keys(turn, [str(i) for i in range(5)], "points"))
        corner = ball.lmo(x, keys.sign((6,), dtype=torch.float64))
        for point in (corner, ball.sample(x, keys)):
            found = torch.maximum(found, functional.cross_entropy(net(point), y))
    assert all(bound.item() >= found.item() - 1e-9 for bound in bounds)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from(["0.01", "0.1", "0.5"]))
def test_the_fused_loss_is_never_above_the_interval_loss_and_bounds_the_sum(seed: int, size: str) -> None:
    net, ball = _mlp(seed), sp.Linf(size, box=UNIT)
    x, y, _ = _batch(seed, (6,))
    clean, region = clean_pass(net, x, y), region_of(ball, x)
    walker = Walker(clean.graph)
    values, lines, _ = Encloser(walker).enclose(region, refine=False)
    lower = tail(walker, region, values, clean.rows)
    upper = -tail(walker, region, values, -clean.rows)
    fused = fused_loss(Backward(walker, lines, region), clean.rows, lower, upper)
    interval = functional.softplus(torch.logsumexp(-lower, 1))
    assert bool((fused <= interval + 1e-9).all())
    corner = ball.lmo(x, torch.autograd.grad(functional.cross_entropy(net(z := x.clone().requires_grad_()), y), z)[0])
    assert bool((fused >= functional.cross_entropy(net(corner), y, reduction="none") - 1e-9).all())


def test_with_no_nonlinear_node_fusion_costs_only_the_chord() -> None:
    # a set of one point: intervals and lines are exact, and so is the fused loss
    net = _mlp(3)
    x, y, draws = _batch(3, (6,))
    loss = CrownIBP(sp.Linf("1/1000000000", box=UNIT), kappa=0.0, beta=1.0)(net, x, y, draws)
    assert loss.item() == pytest.approx(functional.cross_entropy(net(x), y).item(), abs=1e-7)


def test_sabr_with_the_whole_box_is_ibp() -> None:
    x, y, draws = _batch(4, (6,))
    for fraction in (Fraction(1, 3), Fraction(1)):
        small = SABR(BALL, share=Fraction(1)).at(fraction)
        whole = IBP(BALL, kappa=0.0).at(fraction)
        difference = small(_mlp(), x, y, draws) - IBP(sp.Linf(Fraction(1, 10) * fraction, box=UNIT), kappa=0.0)(
            _mlp(), x, y, draws
        )
        if fraction == 1:
            assert small(_mlp(), x, y, draws).item() == whole(_mlp(), x, y, draws).item()
        assert difference.item() >= -1e-12  # the regulariser is what is left


def test_sabr_propagates_a_box_inside_the_set() -> None:
    net = _mlp(5)
    x, y, draws = _batch(5, (6,))
    losses = [SABR(BALL, share=Fraction(s, 10), steps=5)(net, x, y, draws).item() for s in (1, 5, 10)]
    assert losses[0] < losses[1] < losses[2]  # boxes of a tenth, half and all of the size
    assert losses[0] > functional.cross_entropy(net(x), y).item()


def test_mtl_ibp_lies_between_pgd_and_ibp() -> None:
    net = _mlp(6)
    x, y, draws = _batch(6, (6,))
    low, middle, high = (MTLIBP(BALL, alpha=a)(net, x, y, draws) for a in (0.0, 0.25, 1.0))
    assert low.item() == pytest.approx(Adversarial(BALL, steps=8)(net, x, y, draws).item(), rel=1e-12)
    assert high.item() == pytest.approx(IBP(BALL, kappa=0.0)(net, x, y, draws).item(), rel=1e-12)
    assert middle.item() == pytest.approx(0.75 * low.item() + 0.25 * high.item(), rel=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_by_the_weights_agree_with_finite_differences(name: str) -> None:
    objective = OBJECTIVES[name].at(Fraction(3, 4))
    net = _conv(name in ("ibp", "crown-ibp", "dual")).train()
    x, y, draws = _batch(7, (1, 8, 8))
    weights = [w for w in net.parameters() if w.requires_grad]
    gradients = torch.autograd.grad(objective(net, x, y, draws), weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            assert weight.ndim == 1  # a bias in front of batch norm has no say
            continue
        direction = gradient / gradient.norm().clamp_min(1e-12)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(direction, alpha=sign * 1e-6)
            ends.append(objective(net, x, y, draws).item())
            with torch.no_grad():
                weight.sub_(direction, alpha=sign * 1e-6)
        slope = (ends[0] - ends[1]) / 2e-6
        if name in ("sabr", "mtl-ibp"):
            assert slope == pytest.approx(gradient.norm().item(), rel=0.2, abs=1e-4)  # the search moves too
        else:
            assert slope == pytest.approx(gradient.norm().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_gradients_flags_and_hooks_are_left_as_found(name: str) -> None:
    net = _conv(True).train()
    net[0].eval()
    before, flags = copy.deepcopy(dict(net.named_parameters())), [m.training for m in net.modules()]
    x, y, draws = _batch(8, (1, 8, 8))
    first, second = (OBJECTIVES[name](net, x, y, draws) for _ in range(2))
    assert first.requires_grad
    assert first.item() == second.item()  # no random numbers but from draws
    assert all(torch.equal(w, before[n]) and w.grad is None for n, w in net.named_parameters())
    assert [m.training for m in net.modules()] == flags
    assert not net[1]._forward_pre_hooks
    assert int(net[1].num_batches_tracked) == 2  # one clean forward each: bounds and search move no statistics


def test_batch_norm_is_bounded_at_the_statistics_of_the_clean_batch() -> None:
    net = _conv(True).train()
    x, y, draws = _batch(9, (1, 8, 8))
    tiny = sp.Linf("1/1000000000", box=UNIT)
    twin = copy.deepcopy(net)
    expected = functional.cross_entropy(twin(x), y).item()  # train mode
    assert IBP(tiny, kappa=0.0)(net, x, y, draws).item() == pytest.approx(expected, abs=1e-6)
    net.eval()
    expected = functional.cross_entropy(net(x), y).item()  # running statistics
    assert IBP(tiny, kappa=0.0)(net, x, y, draws).item() == pytest.approx(expected, abs=1e-6)


def test_projections_estimate_the_duals_layers() -> None:
    net = _mlp(10, hidden=12)
    x, y, draws = _batch(10, (6,), n=3)
    clean, region = clean_pass(net, x, y), region_of(sp.Linf("0.05"), x)
    exact = Dual.of(clean.graph, region).layers
    found = estimated_layers(clean.graph, region, Draws(draws.keys[:1]), 4000)
    for name, (low, high) in exact.items():
        reach = (high - low).mean().item()
        # the median of 4000 Cauchy magnitudes is off by π/2 / √4000 = 2.5 % of the norm at one standard error
        assert (found[name][0] - low).abs().max().item() < 0.1 * reach
        assert (found[name][1] - high).abs().max().item() < 0.1 * reach


def test_initial_weights_keep_interval_widths() -> None:
    deep = [layer for _ in range(6) for layer in (nn.Linear(200, 200), nn.ReLU())]
    wide, tame = fresh(nn.Sequential(*deep)), interval_initialised(nn.Sequential(*deep))
    x = torch.full((4, 200), 0.5)
    widths = []
    for net in (wide, tame):
        bounds = Interval(upper=True)(capture(net, x), sp.Linf("0.1"), x)
        assert bounds.upper is not None
        widths.append((bounds.upper - bounds.lower).mean().item() / 0.2)
    assert 0.1 < widths[1] < 10
    assert widths[0] > 30 * widths[1]


def test_the_regulariser_vanishes_where_bounds_are_tight_and_relus_balanced_and_not_elsewhere() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
    x = torch.tensor([[2.0, -2.0], [3.0, -3.0]], dtype=torch.float64)

    def value(matrix: list[list[float]], points: torch.Tensor) -> float:
        state = state_of(net) | {"0.weight": torch.tensor(matrix, dtype=torch.float64)}
        bound = live_graph(net, x).bind(state)
        return regulariser(bound, propagate(bound, region_of(sp.Linf("0.1"), points))).item()

    assert value([[1.0, 0.0], [0.0, 1.0]], x) == pytest.approx(0.0, abs=1e-12)
    # widths four times the input's: (1/2 − 1/4) / (1/2)
    assert value([[4.0, 0.0], [0.0, 4.0]], x) == pytest.approx(0.5, abs=1e-12)
    # all ReLUs dead: both ratios are 0, so (1/2 + 1/2) / (1/2)
    assert value([[-1.0, 0.0], [0.0, 1.0]], x) == pytest.approx(2.0, abs=1e-6)


def test_the_schedule_moves_size_kappa_and_regulariser() -> None:
    net = _mlp(11)
    x, y, draws = _batch(11, (6,))
    begun = IBP(BALL, regularise=0.0).at(Fraction(1, 1000))(net, x, y, draws)
    assert begun.item() == pytest.approx(functional.cross_entropy(net(x), y).item(), rel=1e-2)
    assert IBP(BALL).at(Fraction(1)) == IBP(BALL)
    with torch.no_grad():
        net[0].weight.mul_(8)  # bounds much wider than the input's
    with_it, without = (IBP(BALL, regularise=r).at(Fraction(1, 2))(net, x, y, draws).item() for r in (0.5, 0.0))
    assert with_it > without


def test_stretch_trains_against_a_multiple_of_the_set() -> None:
    net = _mlp(12)
    x, y, draws = _batch(12, (6,))
    for fraction in (Fraction(1, 3), Fraction(1)):
        stretched = IBP(BALL, stretch=2.0).at(fraction)(net, x, y, draws)
        assert torch.equal(stretched, IBP(sp.Linf("0.2", box=UNIT)).at(fraction)(net, x, y, draws))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: IBP(BALL, kappa=1.5),
        lambda: IBP(BALL, stretch=0.0),
        lambda: SABR(BALL, share=Fraction(0)),
        lambda: MTLIBP(BALL, alpha=-0.1),
        lambda: DualLoss(BALL, projections=-1),
    ],
)
def test_settings_without_meaning_are_refused(wrong) -> None:
    with pytest.raises(InputError):
        wrong()


def test_what_cannot_be_bounded_is_said() -> None:
    x, y, draws = _batch(0, (1, 8, 8))
    with pytest.raises(NotAvailable, match="set of parameters"):
        IBP(sp.RotationTranslation("30", "1", UNIT))(_conv(False), x, y, draws)
    normed = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 4))).double()
    with pytest.raises(UnsupportedModel, match="parametrisation"):
        IBP(BALL)(normed, x, y, draws)


def test_the_live_graph_follows_the_weights_and_structure() -> None:
    net = _conv(False)
    x, y, _ = _batch(0, (1, 8, 8))
    assert torch.allclose(clean_pass(net, x, y).graph(x), net(x))
    with torch.no_grad():
        net[0].weight.mul_(2)
    assert torch.allclose(clean_pass(net, x, y).graph(x), net(x))
    net[1] = nn.Tanh()  # same shapes, another network
    assert torch.allclose(clean_pass(net, x, y).graph(x), net(x))


def test_certified_training_certifies_what_standard_training_does_not() -> None:
    data, held_out = load("digits:train"), load("digits:test")
    ball = sp.Linf("0.1", box=UNIT)
    start = interval_initialised(nn.Sequential(nn.Flatten(), nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 10)))
    x, y = held_out.take(range(len(held_out))).x, held_out.take(range(len(held_out))).y
    shares = []
    for objective in (None, IBP(ball)):
        net = train(start, data, objective, Trainer(epochs=12, rate=5e-3, warm_up=6)).net
        lower = Interval()(capture(net, x[:2]), ball, x, margin_matrix(y, 10)).lower
        shares.append((lower > 0).all(1).double().mean().item())
    assert shares[0] < 0.1
    assert shares[1] > 0.35

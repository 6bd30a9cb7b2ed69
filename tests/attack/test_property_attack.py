"""The attack on properties: what it offers lies in the box and violates; what it finds on affine maps is the corner."""

import math
import time

import pytest
import torch

from bounded_nets import affine, mlp
from saddlepoint.attack.property import PropertyAttack, attack_property, region_of
from saddlepoint.core.errors import InputError
from saddlepoint.spec import Atom, Property, Query

F64 = torch.float64
QUICK = PropertyAttack(steps=12, rows=16)


def box(lower, upper, property, inner=None):
    return Query(torch.tensor(lower, dtype=F64), torch.tensor(upper, dtype=F64), property, inner)


def run(graph, query, config=QUICK, **more):
    """What the attack ends with, and every candidate on the way. The first violated candidate is taken."""
    offered = []

    def accept(points):
        offered.append(points)
        return points[0]

    return attack_property(graph, query, accept, config, deadline=time.monotonic() + 60, **more), offered


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_is_offered_lies_in_the_box_and_violates_the_property(seed, dtype):
    graph = mlp((4, 8, 3), seed, dtype)
    draw = torch.Generator().manual_seed(seed)
    lower = torch.rand(4, generator=draw, dtype=F64)
    formula = Property(tuple((Atom(z=(1.0, -1.0, 0.1 * k), b=0.5 - k),) for k in range(2)))
    query = Query(lower, lower + torch.rand(4, generator=draw, dtype=F64), formula)
    found, offered = run(graph, query)
    for points in offered:
        assert points.dtype == F64
        assert bool(query.admits(points).all())
        x = points.to(dtype)
        assert bool(query.property.violated(x, graph(x)).all())
    assert (found is None) == (not offered)


@pytest.mark.parametrize("seed", range(5))
def test_the_second_batch_holds_the_worst_corner_of_an_affine_map(seed):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 6, generator=draw, dtype=F64)
    graph = affine(weight, torch.zeros(1, dtype=F64))
    lowest = -float(weight.abs().sum())
    query = box([-1.0] * 6, [1.0] * 6, Property(((Atom(z=(1.0,), b=-lowest - 1e-9),),)))
    found, _ = run(graph, query, PropertyAttack(steps=1, rows=1))
    assert found is not None
    assert torch.equal(found, -weight[0].sign())
    nothing, offered = run(graph, box([-1.0] * 6, [1.0] * 6, Property(((Atom(z=(1.0,), b=-lowest + 1e-9),),))))
    assert nothing is None
    assert not offered


def test_all_atoms_of_a_clause_have_to_fall():
    graph = affine(torch.eye(2, dtype=F64), torch.zeros(2, dtype=F64))
    small = ((Atom(z=(1.0, 0.0), b=0.9), Atom(z=(0.0, -1.0), b=0.9)),)  # violated where x ≤ −0.9 and y ≥ 0.9
    found, _offered = run(graph, box([-1.0, -1.0], [1.0, 1.0], Property(small)))
    assert found is not None
    assert float(found[0]) <= -0.9
    assert float(found[1]) >= 0.9
    contrary = ((Atom(z=(1.0, 0.0), b=0.1), Atom(z=(-1.0, 0.0), b=0.1)),)  # x ≤ −0.1 and x ≥ 0.1
    assert run(graph, box([-1.0, -1.0], [1.0, 1.0], Property(contrary))) == (None, [])


def test_every_clause_gets_a_row_and_one_is_enough():
    graph = affine(torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64))
    clauses = (*tuple((Atom(b=1.0),) for _ in range(20)), (Atom(z=(1.0, 1.0, 1.0), b=2.999),))
    found, _ = run(graph, box([-1.0] * 3, [1.0] * 3, Property(clauses)), PropertyAttack(steps=10, rows=42))
    assert found is not None
    assert found.tolist() == [-1.0, -1.0, -1.0]


def test_a_strict_atom_at_zero_is_no_candidate_and_a_plain_one_is():
    graph = affine(torch.zeros(1, 1, dtype=F64), torch.zeros(1, dtype=F64))
    assert run(graph, box([0.0], [1.0], Property(((Atom(z=(1.0,), strict=True),),))))[0] is None
    assert run(graph, box([0.0], [1.0], Property(((Atom(z=(1.0,)),),))))[0] is not None


def test_inputs_in_atoms_are_descended_on():
    graph = affine(torch.zeros(1, 2, dtype=F64), torch.zeros(1, dtype=F64))
    query = box([0.0, 0.0], [1.0, 1.0], Property(((Atom(x=(1.0, -1.0), z=(1.0,), b=0.95),),)))
    found, _ = run(graph, query, seed=3)
    assert found is not None
    assert float(found[0] - found[1]) <= -0.95


def test_limits_that_float32_cannot_hold_stay_as_they_are():
    graph = mlp((3, 4, 1), 0, torch.float32)
    pinned = 0.1  # no float32
    query = box([pinned, -1.0, 1 / 3], [pinned, 1.0, 1 / 3 + 1e-12], Property(((Atom(b=-1.0),),)))
    region = region_of(query, torch.float32)
    assert region.fixed.tolist() == [True, False, True]
    found, _ = run(graph, query)
    assert found is not None
    assert (float(found[0]), float(found[2])) == (pinned, 1 / 3)


def test_float32_limits_are_rounded_into_the_box():
    query = box([0.1, -0.1], [0.3, 0.7], Property(((Atom(b=1.0),),)))
    region = region_of(query, torch.float32)
    assert bool((region.lower.double() >= query.lower).all())
    assert bool((region.upper.double() <= query.upper).all())
    assert bool((region.upper.double() >= query.upper - 1e-7).all())


def test_starts_are_moved_into_the_box_and_used():
    graph = affine(torch.zeros(1, 2, dtype=F64), torch.zeros(1, dtype=F64))
    spike = ((Atom(x=(1.0, 0.0), b=-0.25), Atom(x=(-1.0, 0.0), b=0.25)),)  # x0 = 0.25 exactly
    query = box([0.0, 0.0], [1.0, 1.0], Property(spike))
    found, _ = run(graph, query, start=torch.tensor([[0.25, 7.0]], dtype=F64))
    assert found is not None
    assert found.tolist() == [0.25, 1.0]


def test_candidates_that_are_dropped_do_not_end_the_attack():
    graph = affine(torch.eye(1, dtype=F64), torch.zeros(1, dtype=F64))
    query = box([-1.0], [1.0], Property(((Atom(z=(1.0,)),),)))
    seen = []
    found = attack_property(graph, query, lambda p: seen.append(len(p)), QUICK, deadline=time.monotonic() + 60)
    assert found is None
    assert len(seen) > 1
    assert max(seen) <= QUICK.offered


def test_nan_is_never_a_candidate():
    graph = affine(torch.full((1, 1), math.inf, dtype=F64), torch.zeros(1, dtype=F64))
    query = box([0.0], [0.0], Property(((Atom(z=(1.0,)),),)))  # 0 · ∞
    assert run(graph, query) == (None, [])


def test_the_deadline_ends_a_round():
    graph = mlp((4, 8, 3), 0)
    query = box([0.0] * 4, [1.0] * 4, Property(((Atom(b=1.0),),)))
    begun = time.monotonic()
    assert attack_property(graph, query, lambda _: None, PropertyAttack(steps=10**6), deadline=begun) is None
    assert time.monotonic() - begun < 5


def test_numbers_below_one_are_refused():
    with pytest.raises(InputError, match="below 1"):
        PropertyAttack(steps=0)

"""Complete search: its verdicts are true, its certificates say so by themselves, and it ends on time."""

import itertools
import math
import time
from dataclasses import replace

import pytest
import torch
from read_certificate import Reading

from saddlepoint.bound.search import Settings, search
from saddlepoint.check.certificate import judge
from saddlepoint.core.errors import InputError
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Add, Linear, Mul, Relu, Sigmoid, Softmax
from saddlepoint.lab.soundness.cases import Case, cases
from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query


def mlp(seed: int, sizes: tuple[int, ...], scale: float = 1.0) -> Graph:
    """A random ReLU network in float32."""
    draw = torch.Generator().manual_seed(seed)
    nodes, at = [], "x"
    for k, (m, n) in enumerate(itertools.pairwise(sizes)):
        weight = scale * torch.randn((n, m), generator=draw) / math.sqrt(m)
        nodes.append(Node(f"v{k}", Linear(weight, 0.3 * torch.randn(n, generator=draw)), (at,), (n,)))
        at = f"v{k}"
        if k < len(sizes) - 2:
            nodes.append(Node(f"h{k}", Relu(), (at,), (n,)))
            at = f"h{k}"
    return Graph(tuple(nodes), "x", at, (sizes[0],))


def lowest(graph: Graph, query: Query, count: int = 4000) -> float:
    """The smallest value of the property that random points, corners and a few gradient steps find."""
    draw = torch.Generator().manual_seed(0)
    d = len(query.lower)
    x = torch.rand((count, d), generator=draw, dtype=torch.float64)
    x[: count // 4] = x[: count // 4].round()
    width = query.upper - query.lower
    exact = graph.to(torch.float64)
    best = torch.inf
    for _ in range(20):
        x = x.detach().requires_grad_()
        value = query.property(query.lower + x * width, exact(query.lower + x * width))
        best = min(best, float(value.detach().min()))
        (grad,) = torch.autograd.grad(value.sum(), x)
        x = (x - 0.05 * grad.sign()).clamp(0, 1)
    return best


def box_query(d: int, formula: Property, radius: float = 1.0) -> Query:
    return Query(torch.full((d,), -radius, dtype=torch.float64), torch.full((d,), radius, dtype=torch.float64), formula)


def shifted(graph: Graph, formula_of, d: int, gap: float, radius: float = 1.0, count: int = 4000) -> Query:
    """The query whose value is `gap` at the lowest point found."""
    low = lowest(graph, box_query(d, formula_of(0.0), radius), count)
    return box_query(d, formula_of(gap - low), radius)


FORMULAS = {
    "one atom": lambda b: Property(((Atom((1.0, -1.0, 0.5), (), b),),)),
    "two clauses": lambda b: Property(((Atom((1.0, -1.0, 0.0), (), b),), (Atom((0.0, 1.0, -1.0), (), b),))),
    "a disjunction": lambda b: Property(((Atom((1.0, 0.0, 0.0), (), b), Atom((0.0, -1.0, 0.0), (), b)),)),
    "inputs too": lambda b: Property(((Atom((1.0, 0.0, -1.0), (0.5, -0.5, 0.0), b),),)),
}


WAYS = {"box": Settings(), "neurons": Settings(few=0, climb=4, improve=2)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_true_property_is_proven_with_a_certificate(name, seed, way):
    graph = mlp(seed, (3, 10, 8, 3))
    query = shifted(graph, FORMULAS[name], 3, 0.2 if way == "box" else 0.01)
    found = search(graph, query, WAYS[way], deadline=time.monotonic() + 20)
    assert found.status == "holds"
    assert 0 < found.lower <= lowest(graph, query) + 1e-5
    reading = Reading(graph, found.certificate)
    assert reading.complete()
    assert float(reading.leaves().min()) > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_false_property_is_never_proven_and_a_witness_is_found(name, way):
    graph = mlp(3, (3, 10, 8, 3))
    query = shifted(graph, FORMULAS[name], 3, -0.02)

    def refute(points):
        values = query.property(points, graph.to(torch.float64)(points))
        bad = ((values <= 0) & query.admits(points)).nonzero().flatten()
        return points[bad[0]] if len(bad) else None

    found = search(graph, query, WAYS[way], deadline=time.monotonic() + 20, refute=refute)
    assert found.status == "violated"
    assert bool(query.admits(found.witness[None]).all())
    assert float(query.property(found.witness[None], graph.to(torch.float64)(found.witness[None]))) <= 0
    assert search(graph, query, WAYS[way], deadline=time.monotonic() + 0.3).status == "open"


def test_attention_is_proven_at_the_root_and_the_judge_agrees():
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn((4, 4), generator=draw) / 2 for _ in range(2)]
    nodes = (
        Node("k", Linear(weights[0]), ("x",), (4,)),
        Node("s", Softmax(1), ("k",), (4,)),
        Node("m", Mul(), ("s", "k"), (4,)),
        Node("z", Linear(weights[1][:3]), ("m",), (3,)),
    )
    graph = Graph(nodes, "x", "z", (4,))

    def at(b: float, steps: int):
        query = box_query(4, FORMULAS["one atom"](b), 0.3)
        return query, search(graph, query, Settings(few=0, climb=steps), deadline=time.monotonic() + 20)

    plain, better = at(-9.0, 0)[1].lower, at(-9.0, 30)[1].lower
    assert plain < better - 1e-3
    b = -9.0 - (plain + better) / 2  # between what the two can prove
    assert at(b, 0)[1].status == "open"
    query, found = at(b, 30)
    assert found.status == "holds"
    assert found.lower <= lowest(graph, query) + 1e-5
    ruling = judge(graph, query, found.certificate)
    assert ruling.accepted, ruling.reason


def test_the_deadline_is_kept_and_the_bound_so_far_is_true():
    graph = mlp(5, (12, 60, 60, 3), 2.0)
    query = shifted(graph, FORMULAS["one atom"], 12, 1e-4)
    start = time.monotonic()
    found = search(graph, query, deadline=start + 0.3)
    assert time.monotonic() - start < 1.5
    assert found.status == "open"
    assert found.certificate is None
    assert found.lower <= lowest(graph, query) + 1e-5


def test_a_box_of_one_point_is_decided():
    graph = mlp(1, (3, 8, 3))
    at = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    value = float(graph.to(torch.float64)(at[None])[0] @ torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
    for gap in (0.01, -0.01):
        query = Query(at, at, FORMULAS["one atom"](gap - value))
        found = search(graph, query, deadline=time.monotonic() + 5)
        assert found.status == ("holds" if gap > 0 else "open")


def tight(above: bool) -> list[Case]:
    """Random networks whose exact minimum lies within float32's rounding of 0, on one side."""
    chosen = [c for c in cases(64) if c.family == "enumerated" and abs(c.least) < 2e-6 and (c.least > 0) == above]
    assert len(chosen) >= 6
    return chosen[:6]


def asked(case: Case) -> Query:
    return Query(case.lower, case.upper, Property(((Atom((1.0,)),),)))


def test_margins_within_float32s_rounding_are_proven_in_float64():
    for case in tight(above=True):
        query = asked(case)
        found = search(case.graph, query, deadline=time.monotonic() + 20)
        assert found.status == "holds", case.name
        assert 0 < found.lower <= float(case.least) + 1e-12
        assert judge(case.graph, query, found.certificate, deadline=math.inf).accepted


def test_a_search_ends_where_the_property_fails_and_no_witness_is_accepted():
    """1000 |x − 0.3| > 1e-5 fails within 1e-8 of 0.3, where float32 rounds by more."""
    steep = torch.tensor([[1000.0], [-1000.0]])
    bend = Node("v", Linear(steep, torch.tensor([-300.0, 300.0])), ("x",), (2,))
    out = Node("out", Linear(torch.ones(1, 2), torch.tensor([-1e-5])), ("h",), (1,))
    graph = Graph((bend, Node("h", Relu(), ("v",), (2,)), out), "x", "out", (1,))
    begun = time.monotonic()
    found = search(graph, box_query(1, Property(((Atom((1.0,)),),))), deadline=begun + 60, refute=lambda points: None)
    assert found.status == "open"
    assert found.lower <= -1e-5 + 1e-12
    assert time.monotonic() - begun < 30


def test_weights_that_are_not_finite_prove_nothing():
    graph = mlp(1, (3, 8, 3))
    first = graph.nodes[0]
    for bad in (math.nan, math.inf):
        weight = first.op.weight.clone()
        weight[0, 0] = bad
        broken = Graph((Node("v0", Linear(weight, first.op.bias), ("x",), (8,)), *graph.nodes[1:]), "x", "v1", (3,))
        query = box_query(3, FORMULAS["one atom"](100.0))
        assert search(broken, query, deadline=time.monotonic() + 0.5).status == "open"


def test_a_query_of_another_size_is_refused():
    with pytest.raises(InputError):
        search(mlp(0, (3, 4, 3)), box_query(4, FORMULAS["one atom"](0.0)), deadline=time.monotonic())


def wide(seed: int) -> tuple[Graph, Query]:
    """Three inputs, more than two thousand neurons, a branch: forward bounds; its property holds by 0.05 at points."""
    draw = torch.Generator().manual_seed(seed)

    def linear(n: int, m: int) -> Linear:
        return Linear(torch.randn((n, m), generator=draw) / math.sqrt(m), 0.3 * torch.randn(n, generator=draw))

    nodes = (
        Node("a", linear(1100, 3), ("x",), (1100,)),
        Node("h", Relu(), ("a",), (1100,)),
        Node("b", linear(1100, 1100), ("h",), (1100,)),
        Node("s", Sigmoid(), ("b",), (1100,)),
        Node("sum", Add(), ("h", "s"), (1100,)),
        Node("o", linear(1, 1100), ("sum",), (1,)),
    )
    graph = Graph(nodes, "x", "o", (3,))
    return graph, shifted(graph, lambda b: Property(((Atom(z=(1.0,), b=b),),)), 3, 0.05, 0.3, 400)


@pytest.mark.parametrize("seed", range(3))
def test_wide_graphs_of_few_inputs_are_split_under_forward_bounds(seed):
    graph, query = wide(seed)
    found = search(graph, query, deadline=time.monotonic() + 60)
    assert found.status == "holds"
    assert found.certificate.sets.effort.unique().tolist() == [2]
    assert len(found.certificate.leaves.node) > 4
    assert judge(graph, query, found.certificate, deadline=time.monotonic() + 60).accepted
    low = Query(query.lower, query.upper, Property(((Atom(z=(1.0,), b=query.property.clauses[0][0].b - 0.1),),)))
    assert not judge(graph, low, replace(found.certificate, property=low.property), deadline=math.inf).accepted


def narrow(seed: int) -> tuple[Graph, Query]:
    """Two inputs, two layers of 700: few enough neurons for backward bounds; its property holds by 0.05 at points."""
    draw = torch.Generator().manual_seed(seed)
    nodes, before, m = [], "x", 2
    for name, n, op in (("a", 700, Relu()), ("b", 700, Sigmoid())):
        layer = Linear(torch.randn((n, m), generator=draw) / math.sqrt(m), 0.3 * torch.randn(n, generator=draw))
        nodes += [Node(name, layer, (before,), (n,)), Node(name + "'", op, (name,), (n,))]
        before, m = name + "'", n
    nodes.append(Node("o", Linear(torch.randn((1, m), generator=draw) / math.sqrt(m), torch.zeros(1)), (before,), (1,)))
    graph = Graph(tuple(nodes), "x", "o", (2,))
    return graph, shifted(graph, lambda b: Property(((Atom(z=(1.0,), b=b),),)), 2, 0.05, 0.3, 400)


@pytest.mark.parametrize(("made", "effort"), [(wide, 2), (narrow, 1)])
def test_in_float64_the_checker_accepts_what_wide_layers_round(made, effort):
    # every cut lies at the slack, where the checker charges a layer for each of its products
    graph, query = made(1)
    graph = graph.to(torch.float64)
    found = search(graph, query, deadline=time.monotonic() + 60)
    assert found.status == "holds"
    assert found.certificate.sets.effort.unique().tolist() == [effort]
    assert judge(graph, query, found.certificate, deadline=time.monotonic() + 60).accepted

"""The checker of certificates: what it accepts is true, and whoever changes a certificate gains nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saddlepoint.check import proofs
from saddlepoint.check.certificate import judge
from saddlepoint.check.certificate_tree import forest
from saddlepoint.check.proofs_walk import Rows
from saddlepoint.check.support import Region
from saddlepoint.graph.ir import Graph, Node
from saddlepoint.graph.ops import Concat, Linear, Relu
from saddlepoint.spec.certificate import BoundSets, Certificate, Extra, Leaves, Lines, Tree
from saddlepoint.spec.property import Atom, Property
from saddlepoint.spec.query import Query

INPUTS, HIDDEN = 2, 5
FIRST, SECOND, THIRD, FOURTH = 1, 2, 3, 4  # numbers of the values: linear, relu, linear, relu


def net(seed: int) -> Graph:
    """2 → 5 → 5 → 2 with ReLUs."""
    generator = torch.Generator().manual_seed(seed)

    def linear(i: int, o: int) -> Linear:
        w, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((o, i), (o,)))
        return Linear(w.float(), b.float() / 2)

    nodes = (
        Node("a", linear(INPUTS, HIDDEN), ("x",), (HIDDEN,)),
        Node("ra", Relu(), ("a",), (HIDDEN,)),
        Node("b", linear(HIDDEN, HIDDEN), ("ra",), (HIDDEN,)),
        Node("rb", Relu(), ("b",), (HIDDEN,)),
        Node("z", linear(HIDDEN, 2), ("rb",), (2,)),
    )
    return Graph(nodes, "x", "z", (INPUTS,))


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def query(b: float) -> Query:
    """z_0 − z_1 + b > 0 on [−1, 1]²."""
    limit = torch.ones(INPUTS, dtype=torch.float64)
    return Query(-limit, limit, Property(((Atom((1.0, -1.0), (), b),),)))


def tree(*rows: tuple[int, int, int, float, int]) -> Tree:
    columns = list(zip(*rows, strict=True))
    parent, value, entry = (ints(*c) for c in columns[:3])
    return Tree(parent, value, entry, torch.tensor(columns[3], dtype=torch.float64), torch.tensor(columns[4]))


ROOT = (-1, 0, 0, 0.0, 0)


def certificate(asked: Query, domains: Tree, ends: list[int], effort: int = 1, level: int = 100) -> Certificate:
    """One set, one line and one leaf at each of the nodes `ends`; every lower slope is level/255."""
    n = len(ends)
    where = ints(*ends)
    depth = [sum(1 for _ in path(domains, k)) for k in ends]
    start = torch.tensor([0, *torch.tensor(depth).cumsum(0).tolist()])
    return Certificate(
        asked.lower,
        asked.upper,
        asked.property,
        domains,
        BoundSets(where, ints(*[-1] * n), ints(*[0] * n), torch.full((n,), effort, dtype=torch.uint8)),
        Lines(where, ints(*range(n)), ints(*[0] * n), ints(*[0] * n), torch.ones(n, 1), torch.zeros(start[-1]), start),
        Leaves(where, ints(*range(n))),
        free={v: torch.arange(HIDDEN, dtype=torch.int32) for v in (SECOND, FOURTH)},
        choice={v: torch.full((1, HIDDEN), level, dtype=torch.uint8) for v in (SECOND, FOURTH)},
    )


def path(domains: Tree, k: int) -> list[int]:
    """The nodes above k, itself included, that split a neuron."""
    found = []
    while k >= 0:
        if int(domains.value[k]) > 0 and int(domains.parent[k]) >= 0:
            found.append(k)
        k = int(domains.parent[k])
    return found


def least(graph: Graph) -> float:
    """min of z_0 − z_1 on a fine grid."""
    axis = torch.linspace(-1, 1, 401, dtype=torch.float64)
    z = graph.to(torch.float64)(torch.cartesian_prod(axis, axis))
    return float((z[:, 0] - z[:, 1]).min())


def threshold_of(graph: Graph, make) -> float:
    """The smallest b for which the certificate of z_0 − z_1 + b > 0 is accepted, read off a b that is large enough."""
    asked = query(1e4)
    ruling = judge(graph, asked, make(asked))
    assert ruling.accepted, ruling.reason
    return 1e4 - ruling.lowest


INPUT_HALVES = tree(ROOT, (0, 0, 0, 0.25, 0), (0, 0, 0, 0.25, 1), (2, 0, 1, -0.5, 0), (2, 0, 1, -0.5, 1))


def neuron_halves(graph: Graph) -> Tree:
    """The first neuron of each layer split at 0."""
    return tree(ROOT, (0, FIRST, 0, 0.0, 0), (0, FIRST, 0, 0.0, 1), (2, THIRD, 1, 0.0, 0), (2, THIRD, 1, 0.0, 1))


def rechecked(graph: Graph, lower: Tensor, upper: Tensor, level: int = 100) -> float:
    """−(the lower bound of z_0 − z_1 on a box) as the checker of CROWN's proofs has it, with the same slopes."""
    slopes = {name: torch.full((1, HIDDEN), level / 255) for name in ("ra", "rb")}
    where = Region({"kind": "box"}, lower[None], lower[None], upper[None])
    check = proofs._Check(graph.to(torch.float64), 1 << 25, slopes)
    row = Rows(torch.tensor([[1.0, -1.0]], dtype=torch.float64), (2,))
    return -float(check._prepare(where, 1, linear=True).minimum("z", row, torch.tensor([0])))


@pytest.mark.parametrize("seed", range(4))
def test_leaves_of_boxes_are_what_the_proofs_of_boxes_say(seed: int) -> None:
    graph = net(seed)
    domains = forest(INPUT_HALVES, -torch.ones(2).double(), torch.ones(2).double(), [2, 5, 5, 5, 5, 2])
    low, high = domains.box(torch.tensor([1, 3, 4]))
    parts = [rechecked(graph, *pair) for pair in zip(low, high, strict=True)]
    found = threshold_of(graph, lambda q: certificate(q, INPUT_HALVES, [1, 3, 4]))
    assert found == pytest.approx(max(parts), abs=1e-5)
    assert found >= -least(graph)


@pytest.mark.parametrize("seed", range(4))
def test_effort_tightens_and_nothing_passes_the_truth(seed: int) -> None:
    graph = net(seed)
    truth = -least(graph)
    plain = threshold_of(graph, lambda q: certificate(q, tree(ROOT), [0], effort=0))
    root = threshold_of(graph, lambda q: certificate(q, tree(ROOT), [0]))
    neurons = threshold_of(graph, lambda q: certificate(q, neuron_halves(graph), [1, 3, 4]))
    assert truth <= root <= plain + 1e-5
    assert truth <= neurons


def test_multipliers_bring_what_a_split_cuts_away() -> None:
    """y = relu(x) − x/2 on [−1, 1] is ≥ 0; at the root the line with slope 0 says −1/2, with both halves and β 0 or 1/2
    the exact value is reached."""
    nodes = (
        Node("v", Linear(torch.ones(1, 1)), ("x",), (1,)),
        Node("r", Relu(), ("v",), (1,)),
        Node("both", Concat(1), ("r", "v"), (2,)),
        Node("z", Linear(torch.tensor([[1.0, -0.5]])), ("both",), (1,)),
    )
    graph, limit = Graph(nodes, "x", "z", (1,)), torch.ones(1, dtype=torch.float64)
    halves = tree(ROOT, (0, 1, 0, 0.0, 0), (0, 1, 0, 0.0, 1))
    asked = Query(-limit, limit, Property(((Atom((1.0,), (), 1e-6),),)))
    for beta, accepted in ((0.0, False), (0.5, True), (0.7, False)):
        ends = ints(1, 2)
        start, weight = torch.tensor([0, 1, 2]), torch.ones(2, 1)
        stated = Lines(ends, ints(0, 0), ints(0, 0), ints(-1, -1), weight, torch.tensor([beta, beta]), start)
        sets = BoundSets(ints(0), ints(-1), ints(-1), torch.zeros(1, dtype=torch.uint8))
        whole = Certificate(-limit, limit, asked.property, halves, sets, stated, Leaves(ends, ints(0, 1)))
        assert judge(graph, asked, whole).accepted == accepted, beta


def test_a_line_serves_the_parts_of_its_box() -> None:
    """One backward pass at the root, four leaves below it."""
    graph = net(1)
    asked = query(threshold_of(graph, lambda q: certificate(q, tree(ROOT), [0])) + 1e-3)
    one = certificate(asked, tree(ROOT), [0])
    shared = replace(one, tree=INPUT_HALVES, leaves=Leaves(ints(1, 3, 4), ints(0, 0, 0)))
    assert judge(graph, asked, shared).accepted
    assert judge(graph, asked, shared).leaves == 3


def good() -> tuple[Graph, Query, Certificate]:
    graph = net(2)
    asked = query(threshold_of(graph, lambda q: certificate(q, neuron_halves(graph), [1, 3, 4])) + 1e-3)
    return graph, asked, certificate(asked, neuron_halves(graph), [1, 3, 4])


def test_a_missing_half_is_a_hole() -> None:
    graph, asked, whole = good()
    assert judge(graph, asked, whole).accepted
    for missing in range(3):
        kept = [i for i in range(3) if i != missing]
        leaves = Leaves(whole.leaves.node[kept], whole.leaves.line[kept])
        found = judge(graph, asked, replace(whole, leaves=leaves))
        assert not found.accepted
        assert "cover" in found.reason


def changed(whole: Certificate, part: str, name: str, value: Tensor) -> Certificate:
    return replace(whole, **{part: replace(getattr(whole, part), **{name: value})})


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("tree", "threshold", torch.tensor([0.0, 0.1, 0.0, 0.0, 0.0], dtype=torch.float64)),
        ("tree", "side", torch.tensor([0, 1, 1, 0, 1])),
        ("tree", "parent", ints(-1, 0, 0, 4, 2)),
        ("tree", "entry", ints(0, 0, 0, 7, 7)),
        ("tree", "entry", ints(0, 0, 0, 1, 2)),
        ("tree", "value", ints(0, 9, 9, 3, 3)),
        ("sets", "node", ints(1, 4, 3)),
        ("sets", "base", ints(1, -1, -1)),
        ("sets", "base", ints(-1, 0, -1)),
        ("lines", "set", ints(0, 0, 0)),
        ("lines", "weight", -torch.ones(3, 1)),
        ("lines", "weight", torch.zeros(3, 1)),
        ("lines", "weight", torch.full((3, 1), torch.nan)),
        ("lines", "beta", torch.tensor([0.0, -1.0, 0.0, 0.0, 0.0])),
        ("lines", "beta", torch.zeros(4)),
        ("lines", "clause", ints(0, 1, 0)),
        ("lines", "choice", ints(0, 1, 0)),
        ("leaves", "node", ints(1, 1, 4)),
        ("leaves", "node", ints(0, 3, 4)),
        ("leaves", "line", ints(0, 2, 1)),
    ],
)
def test_damage_is_refused(part: str, name: str, value: Tensor) -> None:
    graph, asked, whole = good()
    found = judge(graph, asked, changed(whole, part, name, value))
    assert not found.accepted
    assert found.reason


def test_another_box_property_or_clock_is_refused() -> None:
    graph, asked, whole = good()
    assert not judge(graph, replace(asked, upper=asked.upper * 2), whole).accepted
    assert not judge(graph, query(-1e6), whole).accepted
    assert "time" in judge(graph, asked, whole, deadline=0.0).reason
    broken = graph.nodes[0].op
    assert isinstance(broken, Linear)
    nan = replace(graph.nodes[0], op=Linear(broken.weight * torch.nan, broken.bias))
    assert not judge(replace(graph, nodes=(nan, *graph.nodes[1:])), asked, whole).accepted


def test_extra_rows_tighten_one_value() -> None:
    """Slopes of their own for single neurons: never worse than without, and the truth is never passed."""
    graph = net(3)
    every = torch.arange(HIDDEN, dtype=torch.int32).repeat(2)
    sign = torch.tensor([1] * HIDDEN + [-1] * HIDDEN, dtype=torch.int8)

    def with_extras(q: Query, level: int) -> Certificate:
        choice = {SECOND: torch.full((2 * HIDDEN, HIDDEN), level, dtype=torch.uint8)}
        return replace(certificate(q, tree(ROOT), [0]), extras=(Extra(0, THIRD, every, sign, choice),))

    plain = threshold_of(graph, lambda q: certificate(q, tree(ROOT), [0]))
    for level in (0, 90, 255):
        assert -least(graph) <= threshold_of(graph, lambda q, at=level: with_extras(q, at)) <= plain + 1e-5


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_nonsense_never_proves_what_is_false(data: st.DataObject, seed: int) -> None:
    """Any slopes, any multipliers, any tree: for a false property nothing is accepted."""
    graph = net(seed)
    generator = torch.Generator().manual_seed(seed)
    asked = query(-least(graph) - 1e-4)  # violated at a grid point
    rows = [ROOT]
    for _ in range(data.draw(st.integers(0, 4))):
        parent, value = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from([0, FIRST, THIRD]))
        entry = data.draw(st.integers(0, 1))
        threshold = data.draw(st.sampled_from([-0.5, 0.0, 0.0, 0.3]))
        rows += [(parent, value, entry, threshold, 0), (parent, value, entry, threshold, 1)]
    domains = tree(*rows)
    plain = certificate(asked, domains, list(range(len(rows))))
    beta = torch.rand(plain.lines.beta.shape, generator=generator) * 3
    choice = {
        v: torch.randint(0, 256, (len(rows), HIDDEN), generator=generator, dtype=torch.uint8) for v in (SECOND, FOURTH)
    }
    told = ints(*range(len(rows)))
    wild = replace(
        plain,
        lines=replace(plain.lines, beta=beta, choice=told),
        sets=replace(plain.sets, choice=told),
        free={v: torch.arange(HIDDEN, dtype=torch.int32) for v in choice},
        choice=choice,
    )
    assert not judge(graph, asked, wild).accepted

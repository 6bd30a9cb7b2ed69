"""A slow reading of spec/certificate.py in plain float64, one domain at a time: what the tests hold a search to."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.graph.ir import Graph
from saddlepoint.graph.ops import LeakyRelu, LinearOp, Relu
from saddlepoint.graph.transpose import transpose
from saddlepoint.spec.certificate import RAMP, Certificate


class Reading:
    """Bound sets, lines and leaves of one certificate on one graph of linear nodes, Relu and LeakyRelu."""

    def __init__(self, graph: Graph, certificate: Certificate) -> None:
        self.graph = graph.to(torch.float64)
        self.c = certificate
        self.names = [graph.input, *(n.name for n in graph.nodes)]
        self.sets: dict[int, dict[str, tuple[Tensor, Tensor]]] = {}
        self.paths: dict[int, list[int]] = {}

    def path(self, node: int) -> list[int]:
        """Split nodes from the root (left out) to `node`."""
        found = []
        while self.c.tree.parent[node] >= 0:
            found.append(node)
            node = int(self.c.tree.parent[node])
        return found[::-1]

    def box(self, node: int) -> tuple[Tensor, Tensor]:
        lower, upper = self.c.lower.clone(), self.c.upper.clone()
        for k in self.path(node):
            if int(self.c.tree.value[k]) == 0:
                self._cut(lower, upper, k)
        return lower, upper

    def _cut(self, lower: Tensor, upper: Tensor, k: int) -> None:
        tree, i = self.c.tree, int(self.c.tree.entry[k])
        if int(tree.side[k]) == 0:
            upper[i] = min(upper[i], tree.threshold[k])
        else:
            lower[i] = max(lower[i], tree.threshold[k])

    def bounds(self, s: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Bounds of all values in set s, flat."""
        if s in self.sets:
            return self.sets[s]
        sets, c = self.c.sets, self.c
        node, base = int(sets.node[s]), int(sets.base[s])
        assert base < 0 or int(sets.node[base]) in [*self.path(node), node, 0]
        known: dict[str, tuple[Tensor, Tensor]] = {}
        readers = {n.inputs[0] for n in self.graph.nodes if not isinstance(n.op, LinearOp)}
        for v, name in enumerate(self.names):
            low, high = self.box(node) if v == 0 else self._interval(name, known)
            low, high = low.clone(), high.clone()
            if base >= 0:
                old = self.bounds(base)[name]
                low, high = torch.maximum(low, old[0]), torch.minimum(high, old[1])
            for k in self.path(node):
                if int(c.tree.value[k]) == v:
                    self._cut(low, high, k)
            known[name] = (low, high)
            if v and name in readers and int(sets.effort[s]) == 1:
                self._refine(name, known, int(sets.choice[s]), node)
            for extra in c.extras:
                if (extra.set, extra.value) == (s, v):
                    for r in range(len(extra.entry)):
                        e, sign = int(extra.entry[r]), float(extra.sign[r])
                        start = torch.zeros(len(low), dtype=torch.float64)
                        start[e] = sign
                        choice = {i: t[r] for i, t in extra.choice.items()}
                        found = self._minimum({name: start}, 0.0, known, choice, self.box(node))
                        if sign > 0:
                            low[e] = max(low[e], found)
                        else:
                            high[e] = min(high[e], -found)
        self.sets[s] = known
        return known

    def _interval(self, name: str, known: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        node = self.graph.node(name)
        ins = [
            tuple(t.view(1, *shape) for t in known[n])
            for n, shape in zip(node.inputs, self.graph.in_shapes(node), strict=True)
        ]
        if isinstance(node.op, LinearOp):
            middle = node.op(*((low + high) / 2 for low, high in ins))
            radius = node.op.absolute_map(*((high - low) / 2 for low, high in ins))
            return (middle - radius).flatten(), (middle + radius).flatten()
        return node.op(ins[0][0]).flatten(), node.op(ins[0][1]).flatten()

    def _refine(self, name: str, known: dict[str, tuple[Tensor, Tensor]], row: int, node: int) -> None:
        low, high = known[name]
        choice = {i: t[row] for i, t in self.c.choice.items()} if row >= 0 else {}
        for e in ((low < 0) & (high > 0)).nonzero().flatten().tolist():
            for sign in (1.0, -1.0):
                start = torch.zeros(len(low), dtype=torch.float64)
                start[e] = sign
                found = self._minimum({name: start}, 0.0, known, choice, self.box(node))
                if sign > 0:
                    low[e] = max(float(low[e]), found)
                else:
                    high[e] = min(float(high[e]), -found)

    def _line(self, start: dict[str, Tensor], constant: float, known: dict, choice: dict) -> tuple[Tensor, float]:
        pending = {name: a.clone() for name, a in start.items()}
        for node in reversed(self.graph.nodes):
            if node.name not in pending:
                continue
            a = pending.pop(node.name)
            if isinstance(node.op, LinearOp):
                shaped = a.view(1, *node.shape)
                shapes = self.graph.in_shapes(node)
                c = node.op.constant(shapes, shaped)
                constant += 0.0 if c is None else float((shaped * c).sum())
                pulled = [t.flatten() for t in transpose(node.op, shaped, shapes)]
            else:
                low, high = known[node.inputs[0]]
                a_low, a_high, b_high = self._relu(node, low, high, choice)
                constant += float((a.clamp_max(0) * b_high).sum())
                pulled = [torch.where(a > 0, a_low, a_high) * a]
            for name, part in zip(node.inputs, pulled, strict=True):
                pending[name] = pending[name] + part if name in pending else part
        return pending[self.graph.input], constant

    def _relu(self, node, low: Tensor, high: Tensor, choice: dict) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(node.op, (Relu, LeakyRelu))
        s = node.op.slope if isinstance(node.op, LeakyRelu) else 0.0
        place = (0.5 + RAMP * (high + low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
        i = self.names.index(node.name)
        if i in choice:
            place[self.c.free[i].long()] = choice[i].double() / 255
        unstable = (low < 0) & (high > 0)
        stable = torch.where(low >= 0, 1.0, s).double()
        chord = torch.where(unstable, (high - s * low) / (high - low), stable)
        return torch.where(unstable, s + (1 - s) * place, stable), chord, torch.where(unstable, (s - chord) * low, 0.0)

    def _minimum(self, start, constant, known, choice, box) -> float:
        a, c = self._line(start, constant, known, choice)
        return float((a * torch.where(a > 0, *box)).sum()) + c

    def line(self, w: int) -> tuple[Tensor, float]:
        """⟨A, x⟩ + c of line w."""
        lines, tree = self.c.lines, self.c.tree
        node, s = int(lines.node[w]), int(lines.set[w])
        known = {name: (low.clone(), high.clone()) for name, (low, high) in self.bounds(s).items()}
        steps = self.path(node)
        assert int(self.c.sets.node[s]) in [0, *steps]
        beta = self.c.lines.beta[int(lines.start[w]) : int(lines.start[w + 1])].double()
        hidden = [k for k in steps if int(tree.value[k]) != 0]
        assert len(beta) == len(hidden) or len(beta) == 0
        start: dict[str, Tensor] = {}
        constant = 0.0
        z = torch.zeros(torch.Size(self.graph.output_shape).numel(), dtype=torch.float64)
        x = torch.zeros(len(self.c.lower), dtype=torch.float64)
        for weight, atom in zip(lines.weight[w].double(), self.c.property.clauses[int(lines.clause[w])], strict=False):
            assert weight >= 0
            z += weight * torch.tensor(atom.z or [0.0] * len(z), dtype=torch.float64)
            x += weight * torch.tensor(atom.x or [0.0] * len(x), dtype=torch.float64)
            constant += float(weight) * atom.b
        start[self.graph.output], start[self.graph.input] = z, x
        for j, k in enumerate(hidden):
            name, e, t = self.names[int(tree.value[k])], int(tree.entry[k]), float(tree.threshold[k])
            self._cut(*known[name], k)
            if len(beta) == 0:
                continue
            assert beta[j] >= 0
            sign = 1.0 if int(tree.side[k]) == 0 else -1.0
            size = known[name][0].shape
            start.setdefault(name, torch.zeros(size, dtype=torch.float64))[e] += sign * beta[j]
            constant -= sign * float(beta[j]) * t
        row = int(lines.choice[w])
        choice = {i: t[row] for i, t in self.c.choice.items()} if row >= 0 else {}
        return self._line(start, constant, known, choice)

    def leaves(self) -> Tensor:
        """The minimum at every leaf."""
        found, cache = [], {}
        for node, w in zip(self.c.leaves.node.tolist(), self.c.leaves.line.tolist(), strict=True):
            assert int(self.c.lines.node[w]) in [0, *self.path(node), node]
            if w not in cache:
                cache[w] = self.line(w)
            a, c = cache[w]
            low, high = self.box(node)
            assert bool((low <= high).all())
            found.append(float((a * torch.where(a > 0, low, high)).sum()) + c)
        return torch.tensor(found, dtype=torch.float64)

    def complete(self) -> bool:
        """Whether the tree's leaves cover the box for every clause."""
        tree, clauses = self.c.tree, len(self.c.property.clauses)
        proven = torch.zeros((len(tree.parent), clauses), dtype=torch.bool)
        proven[self.c.leaves.node.long(), self.c.lines.clause[self.c.leaves.line.long()].long()] = True
        halves: dict[tuple, Tensor] = {}
        for k in reversed(range(len(tree.parent))):
            p = int(tree.parent[k])
            if p < 0:
                continue
            key = (p, int(tree.value[k]), int(tree.entry[k]), float(tree.threshold[k]))
            other = halves.get((*key, 1 - int(tree.side[k])))
            if other is not None:
                proven[p] |= other & proven[k]
            halves[(*key, int(tree.side[k]))] = proven[k]
        return bool(proven[tree.parent < 0].any(0).all())

"""A domain whose neurons are all decided is a linear program, and its dual closes it.

    min ⟨a₀, x⟩ + c   over the box and   σ_j (v_j(x) − t_j) ≤ 0 for every split j    v_j affine: lines are exact
    = max over β ≥ 0 of the walk's bound (walk.py)

So the program's multipliers are the β of an ordinary line, and an infeasible domain is one whose Farkas multipliers,
made large, lift the line above 0. HiGHS solves it; what it says is used only through β, bounded by a walk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saddlepoint.bound.search.domains import Domains
from saddlepoint.bound.search.walk import Splits, Start
from saddlepoint.core.extras import require

if TYPE_CHECKING:
    from saddlepoint.bound.search.neurons import NeuronSearch


def exact_leaf(search: NeuronSearch, domain: Domains) -> tuple[Domains | None, Tensor | None]:
    """The domain (one row) with multipliers that prove it, or None and the point (1, d) where it is lowest."""
    rows = torch.tensor([column for column, _, _ in domain.path[0]], dtype=torch.int64)
    a, c = _affine(search, domain, rows)
    sign = domain.sign[0, rows].double()
    low, high = (t.double() for t in (search.task.query.lower, search.task.query.upper))
    solved = _solved(a, c, sign, domain.threshold[0, rows].double(), low, high)
    if solved is None:
        return None, None
    beta, point = solved
    full = torch.zeros_like(domain.beta)
    full[0, rows] = beta.to(full)
    for scale in (1.0, 1.0 + 1e-4, 1.0 - 1e-4):
        bound = _bound(search, replace(domain, beta=full * scale))
        if float(bound[0]) > search._slack(domain):
            return replace(domain, beta=full * scale, bound=bound), None
    return None, point[None]


def _bound(search: NeuronSearch, domain: Domains) -> Tensor:
    walk = search.root.walk
    lines = walk.lines(domain.lower, domain.upper, domain.choice.to(domain.lower) / 255)
    splits = Splits(domain.beta * domain.sign, domain.threshold)
    walked = walk.down(search.start(domain.clause), lines, splits)
    return walked.minimum(search.root.box_lower, search.root.box_upper)


def _affine(search: NeuronSearch, domain: Domains, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The clause's row first, then every split value, as affine functions of the input: (1 + k, d) and (1 + k,)."""
    walk = search.root.walk
    lines = walk.lines(domain.lower, domain.upper, domain.choice.to(domain.lower) / 255)
    main = walk.down(search.start(domain.clause), lines)
    parts_a, parts_c = [main.a], [main.c]
    graph = search.task.graph
    for column in rows.tolist():
        site = next(s for s in walk.sites.sites if s.start <= column < s.start + len(s.free))
        source = site.node.inputs[0]
        hot = domain.lower.new_zeros((1, int(torch.Size(graph.shape(source)).numel())))
        hot[0, site.free[column - site.start]] = 1.0
        walked = walk.down(Start({source: hot}, hot.new_zeros(1)), lines)
        parts_a.append(walked.a)
        parts_c.append(walked.c)
    return torch.cat(parts_a).double(), torch.cat(parts_c).double()


def _solved(a: Tensor, c: Tensor, sign: Tensor, at: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor] | None:
    """β ≥ 0 and x of min ⟨a₀, x⟩ over the box and σ (⟨a_j, x⟩ + c_j − t_j) ≤ 0.

    An elastic program, so it is never infeasible: violation costs `price`, which bounds β and stands in for Farkas
    multipliers.
    """
    highspy = require("highspy")
    k, d = len(at), len(low)
    price = 1e4 * max(1.0, float(a[0].abs().max()) + float(c[0].abs()))
    left = (sign.unsqueeze(1) * a[1:]).numpy()
    right = (sign * (at - c[1:])).numpy()
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = d + k, k
    program.col_cost_ = np.concatenate([a[0].numpy(), np.full(k, price)])
    program.col_lower_ = np.concatenate([low.numpy(), np.zeros(k)])
    program.col_upper_ = np.concatenate([high.numpy(), np.full(k, highspy.kHighsInf)])
    program.row_lower_, program.row_upper_ = np.full(k, -highspy.kHighsInf), right
    matrix = np.concatenate([left, -np.eye(k)], 1)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.arange(0, matrix.size + 1, d + k)
    program.a_matrix_.index_ = np.tile(np.arange(d + k), k)
    program.a_matrix_.value_ = matrix.ravel()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(program)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    found = solver.getSolution()
    beta = torch.from_numpy(-np.asarray(found.row_dual)).clamp_min(0.0)
    return beta, torch.from_numpy(np.asarray(found.col_value)[:d].copy())

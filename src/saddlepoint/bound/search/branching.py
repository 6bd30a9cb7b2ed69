"""Which entry to split, and where.

    gap     |a_i| · |line(v̂_i) − σ(v̂_i)|           the relaxation's error at the minimiser of the bound
    reach   |a_i| · max over v in {l, t, u} of |line(v) − σ(v)|     how wrong the line can be at all

(`reach` on the upper line is BaBSR's intercept term, Bunel et al. 2020, JMLR 21(42), §5.2; trying the first few of both
scores by one cheap walk each is filtered smart branching, De Palma et al. 2021, arXiv 2104.06718, §4.)
A ReLU splits at 0, any other function in the middle of its interval.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlepoint.bound.search.climb import Batch, Best
from saddlepoint.bound.search.sites import Site, Sites


def thresholds(sites: Sites, lower: Tensor, upper: Tensor) -> Tensor:
    """t (r, F)."""
    middle = (lower + upper) / 2
    for site in sites.sites:
        if site.bent is not None:
            middle[:, site.columns] = 0.0
    return middle


def scores(sites: Sites, batch: Batch, best: Best) -> tuple[Tensor, Tensor]:
    """gap and reach (r, F); −1 where an entry cannot be split."""
    threshold = thresholds(sites, batch.lower, batch.upper)
    gap, reach = torch.zeros_like(threshold), torch.zeros_like(threshold)
    for site in sites.sites:
        c = site.columns
        low, high, a = batch.lower[:, c], batch.upper[:, c], best.at[:, c]
        lines = site.lines(low, high, best.point.choice[:, c])
        slope = torch.where(a > 0, lines.lower_slope, lines.upper_slope)
        floor = torch.zeros_like(low) if lines.lower_constant is None else lines.lower_constant
        constant = torch.where(a > 0, floor, lines.upper_constant)

        def wrong(v: Tensor, site: Site = site, slope: Tensor = slope, constant: Tensor = constant) -> Tensor:
            return (slope * v + constant - site.op(v)).abs()

        seen = torch.minimum(torch.maximum(best.seen[:, c], low), high)
        gap[:, c] = a.abs() * wrong(seen)
        widest = torch.maximum(wrong(low), torch.maximum(wrong(high), wrong(threshold[:, c])))
        reach[:, c] = a.abs() * widest
    inside = (batch.lower < threshold) & (threshold < batch.upper)
    return torch.where(inside, gap, -1.0), torch.where(inside, reach, -1.0)


def candidates(gap: Tensor, reach: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` columns of each score, (r, 2 count), and whether each may be split at all."""
    count = min(count, gap.shape[1])
    columns = torch.cat([gap.topk(count, 1).indices, reach.topk(count, 1).indices], 1)
    return columns, reach.gather(1, columns) >= 0

"""`saddlepoint check`: does it load, what is it, what would each plan cost? It attacks nothing."""

from __future__ import annotations

import json
from typing import Annotated

import torch
from cyclopts import Parameter

from saddlepoint.check.counts import clopper_pearson
from saddlepoint.cli.options import ModelOptions, load_both
from saddlepoint.cli.threats import parse_threats
from saddlepoint.cli.whole import whole
from saddlepoint.core.errors import NonFinite
from saddlepoint.data import Data
from saddlepoint.evaluation.estimate import estimate
from saddlepoint.evaluation.plan import plan_named
from saddlepoint.evaluation.subjects import batches, choose, scan
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec import Access, Model, margin

_GRANTS = {
    Access.LABEL: "labels only",
    Access.SCORES: "scores: black-box attacks",
    Access.GRADIENT: "gradients: white-box attacks, no certificates",
    Access.GRAPH: "graph: white-box attacks and certificates",
}


def check(
    model: str,
    *,
    data: str,
    threat: Annotated[list[str], Parameter(help="whose cost to estimate", negative="")] = ["linf:8/255"],  # noqa: B006  # never changed
    n: Annotated[int | None, Parameter(converter=whole, help="samples to look at (default: all)")] = None,
    options: ModelOptions = ModelOptions(),  # noqa: B008  # frozen
) -> int:
    """Load MODEL and DATA, say what was found out, measure clean accuracy and what each plan would cost.

    Parameters
    ----------
    model: as for `run`
    data: as for `run`
    """
    threats = parse_threats(threat)
    loaded, samples, _ = load_both(model, data, options)
    print(f"model     {loaded.name}   digest {loaded.digest[:12]}")
    granted = "attacks on the mean of draws, certificates from counts" if loaded.smoothing else _GRANTS[loaded.access]
    print(f"access    {Access(loaded.access).name} ({granted})")
    print(f"domain    {loaded.domain}   shape {tuple(loaded.shape)}   classes {loaded.classes}")
    for note in loaded.notes:
        print(f"note      {note}")
    if loaded.stochastic:
        print("warning   outputs differ between calls: one draw bounds nothing, so `run` will ask for --eot (try 20)")
    print(f"data      {samples.spec}   {len(samples)} samples   shape {tuple(samples.shape)}")
    positions = choose(samples, n, "first", 0)
    scan(loaded, samples, positions)
    device = options.device
    correct = _correct(loaded, samples, positions, device)
    low, high = clopper_pearson(correct, len(positions))
    share = correct / len(positions)
    print(f"clean     accuracy {share:.4f}   95 % interval [{low:.4f}, {high:.4f}], n = {len(positions)}")
    batch = samples.take(positions[:32])
    x, y = batch.x.to(device), batch.y.to(device)
    for item in (one.within(loaded.domain) for one in threats):
        label = label_of(json.loads(item.canonical()))[0]
        for name in ("quick", "standard", "strong"):
            cost = estimate(loaded, plan_named(name), item, x, y)
            total = cost.seconds * len(positions)
            print(
                f"plan      {name:<9} {label}: at most {cost.forwards} forwards, {cost.backwards} backwards and "
                f"{cost.seconds:.3g} s a sample, {_clock(total)} for n = {len(positions)} if nothing is decided early"
            )
    return 0


def _correct(model: Model, data: Data, positions: list[int], device: str) -> int:
    correct = 0
    with torch.no_grad():
        for _, x, y, ids in batches(data, positions):
            z = model(x.to(device))
            if not bool(z.isfinite().all()):
                raise NonFinite(f"logits of {ids[0]} … {ids[-1]} hold NaN or infinity.", "Check weights and inputs.")
            correct += int((margin(z, y.to(device)) > 0).sum())
    return correct


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )

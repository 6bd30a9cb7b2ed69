"""A record with real pictures: two small networks on scikit-learn's digits, attacked, certified by intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from saddlepoint.core.digests import canonical_json
from saddlepoint.ledger.claims import (
    Claim,
    Exhibit,
    Header,
    MethodRow,
    ModelRow,
    RunRow,
    SampleResult,
    claim,
)
from saddlepoint.ledger.labels import label_of
from saddlepoint.spec.bracket import Verdict
from saddlepoint.spec.finding import Finding

BOX = {"kind": "box", "lower": [0.0], "upper": [1.0]}


@dataclass
class MemoryRecord:
    """Answers a ledger's questions from memory."""

    model_rows: list[ModelRow] = field(default_factory=list)
    claim_rows: list[Claim] = field(default_factory=list)
    pictures: dict[tuple[str, str], list[Exhibit]] = field(default_factory=dict)
    happenings: list[dict[str, Any]] = field(default_factory=list)
    calls: list[RunRow] = field(default_factory=list)
    examined: dict[tuple[str, str], list[Finding]] = field(default_factory=dict)

    def models(self) -> list[ModelRow]:
        return self.model_rows

    def claims(self) -> list[Claim]:
        return self.claim_rows

    def exhibits(self, model: str, threat: str, /) -> list[Exhibit]:
        return self.pictures.get((model, threat), [])

    def findings(self, model: str, threat: str, /) -> list[Finding]:
        return self.examined.get((model, threat), [])

    def events(self) -> list[dict[str, Any]]:
        return self.happenings

    def runs(self) -> list[RunRow]:
        return self.calls


def threat_of(**described: Any) -> dict[str, Any]:
    """A canonical threat as a dictionary."""
    set_ = {"box": BOX, **described}
    return {"set": set_, "access": "GRAPH", "queries": None, "goal": {"kind": "untargeted"}}


def model_row(name: str = "net", digest: str = "d0", **changes: Any) -> ModelRow:
    """A model's row; keyword arguments replace fields."""
    fields = {
        "digest": digest,
        "name": name,
        "spec": f"{name}.safetensors",
        "access": "GRAPH",
        "classes": 10,
        "domain": BOX,
        "shape": (1, 8, 8),
    }
    return ModelRow(**{**fields, **changes})


def counted(counts: dict[Verdict, int], model: ModelRow | None = None, **threat: Any) -> Claim:
    """A claim with so many samples of each verdict, labels in turn."""
    model = model or model_row()
    samples = [
        SampleResult(f"s{i}", i % model.classes, verdict, None, None, "pgd", 0.1, 2, 1)
        for i, verdict in enumerate(v for v, k in counts.items() for _ in range(k))
    ]
    canonical = threat_of(**(threat or {"kind": "linf", "size": "2/255"}))
    clean = [s.verdict not in (Verdict.MISCLASSIFIED, Verdict.NOT_RUN) for s in samples]
    methods = [
        MethodRow("pgd", "1", {"steps": 20}, 0, "upper", len(samples), 3, 1.5, 40, 20, 0),
        MethodRow("crown", "1", {}, 0, "lower", len(samples), 3, 0.5, 4, 0, 0),
    ]
    return claim(Header(model, canonical, *label_of(canonical)), samples, methods, clean)


def run_row(**changes: Any) -> RunRow:
    """One call of run."""
    spec = {"model": "net.safetensors", "data": "digits", "n": 300, "plan": "standard", "seed": 0}
    fields = {
        "spec": spec,
        "started": "2026-05-04T10:00:00Z",
        "seconds": 61.0,
        "interrupted": False,
        "versions": {"saddlepoint": "0.1.0", "torch": "2.13.0"},
        "untested": ["The plan quick leaves out long attacks: more of them may break open samples."],
    }
    return RunRow(**{**fields, **changes})


def digits(n: int = 300) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train x, train y, test x, test y), pixels in [0, 1], the test part being the last n."""
    data = load_digits()
    x = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(data.target, dtype=torch.int64)
    return x[:-n], y[:-n], x[-n:], y[-n:]


def pgd(net: nn.Module, x: Tensor, y: Tensor, size: float, steps: int) -> Tensor:
    """Signed-gradient ascent on the loss inside the box and the ℓ∞ ball; enough for a picture."""
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_(True)
        loss = nn.functional.cross_entropy(net(x + delta), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta + 2.5 * size / steps * gradient.sign()).detach().clamp(-size, size)
        delta = (x + delta).clamp(0, 1) - x
    return (x + delta).detach()


def trained(adversarial: bool) -> tuple[nn.Sequential, list[dict[str, Any]]]:
    """A 64-32-10 network and its learning curve."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.15
    x, y, x_test, y_test = digits()
    optimiser, events = torch.optim.Adam(net.parameters(), lr=0.01), []
    for epoch in range(8):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            points = pgd(net, x[rows], y[rows], 0.12, 3) if adversarial else x[rows]
            loss = nn.functional.cross_entropy(net(points), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        moved = pgd(net, x_test, y_test, 0.1, 5)
        scores = [(net(points).argmax(1) == y_test).float().mean().item() for points in (x_test, moved)]
        name = "adversarial" if adversarial else "standard"
        events.append(
            {"kind": "epoch", "run": name, "epoch": epoch, "loss": loss.item(), "clean": scores[0], "robust": scores[1]}
        )
    return net, events


def margins(z: Tensor, y: Tensor) -> Tensor:
    """z_y − max of the others."""
    own = z.gather(1, y[:, None])[:, 0]
    return own - z.scatter(1, y[:, None], -torch.inf).amax(1)


def interval_margins(net: nn.Sequential, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Lower bounds of the margin over the ℓ∞ ball by interval arithmetic."""
    low, high = (x - size).clamp(0, 1).flatten(1), (x + size).clamp(0, 1).flatten(1)
    first, last = net[1], net[3]
    middle, radius = (low + high) / 2, (high - low) / 2
    middle, radius = first(middle), radius @ first.weight.abs().T
    low, high = (middle - radius).relu(), (middle + radius).relu()
    rows = last.weight[y][:, None] - last.weight[None]  # w_y − w_j
    shift = last.bias[y][:, None] - last.bias[None]
    bounds = (rows.clamp(min=0) * low[:, None] + rows.clamp(max=0) * high[:, None]).sum(-1) + shift
    return bounds.scatter(1, y[:, None], torch.inf).amin(1).detach()


def warped(x: Tensor, parameters: Tensor) -> Tensor:
    """Rotated and shifted pictures, parameters (angle in degrees, rows, columns)."""
    angle = torch.deg2rad(parameters[:, 0])
    cos, sin = angle.cos(), angle.sin()
    down, right = parameters[:, 1] * 2 / 8, parameters[:, 2] * 2 / 8
    theta = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False)


@cache
def digits_record() -> MemoryRecord:
    """Two models, ℓ∞ at three sizes and rotation with translation."""
    record = MemoryRecord(calls=[run_row()])
    for name in ("standard", "adversarial"):
        net, events = trained(name == "adversarial")
        model = model_row(name, digest=f"digest-{name}")
        record.model_rows.append(model)
        record.happenings += events
        for size in ("1/20", "1/10", "3/20"):
            _add_linf(record, model, net, size)
        _add_spatial(record, model, net)
    record.claim_rows.sort(key=lambda c: c.family)
    return record


def _add_linf(record: MemoryRecord, model: ModelRow, net: nn.Sequential, size: str) -> None:
    threat = threat_of(kind="linf", size=size)
    value = label_of(threat)[2]
    _, _, x, y = digits()
    with torch.no_grad():
        clean = margins(net(x), y)
    witness, worst = pgd(net, x, y, value, 20), clean.clone()
    worst = torch.minimum(worst, margins(net(witness), y).detach())
    # the nearest point of the segment that still breaks the sample
    shares = torch.linspace(0, 1, 21)
    path = torch.stack([margins(net(x + s * (witness - x)), y) for s in shares]).detach()
    first = shares[(path <= 0).float().argmax(0)]
    gauge = first * (witness - x).abs().flatten(1).amax(1)
    nearest = x + first[:, None, None, None] * (witness - x)
    lower = interval_margins(net, x, y, value)
    _claim(record, model, threat, clean, worst, lower, gauge)
    noise = torch.empty_like(x).uniform_(-1, 1, generator=torch.Generator().manual_seed(1)).sign()
    random = (x + gauge[:, None, None, None] * noise).clamp(0, 1)
    broken = ((clean > 0) & (worst <= 0)).nonzero()[:, 0]
    order = broken[gauge[broken].argsort()][:6].tolist()
    record.pictures[model.digest, canonical_json(threat)] = [
        _exhibit(net, i, y, x[i], nearest[i], random[i], gauge[i]) for i in order
    ]


def _add_spatial(record: MemoryRecord, model: ModelRow, net: nn.Sequential) -> None:
    threat = threat_of(kind="spatial", rotation="30", shift="1", size="1", padding="zeros")
    _, _, x, y = digits()
    draws = torch.rand(40, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    limits = torch.tensor([30.0, 1.0, 1.0])
    with torch.no_grad():
        clean = margins(net(x), y)
        all_margins = torch.stack([margins(net(warped(x, (d * limits).expand(len(x), 3))), y) for d in draws])
    sizes = draws.abs().amax(1)
    nearest = torch.where(all_margins <= 0, sizes[:, None], 2.0).argmin(0)
    worst, gauge = torch.minimum(clean, all_margins.amin(0)), sizes[nearest]
    _claim(record, model, threat, clean, worst, None, gauge)
    broken = ((clean > 0) & (worst <= 0)).nonzero()[:, 0]
    exhibits = []
    for i in broken[gauge[broken].argsort()][:6].tolist():
        chosen = draws[nearest[i]] * limits
        control = (draws[(nearest[i] + 7) % 40] / sizes[(nearest[i] + 7) % 40] * gauge[i]) * limits
        points = warped(x[i][None].expand(2, 1, 8, 8), torch.stack([chosen, control]))
        exhibits.append(_exhibit(net, i, y, x[i], points[0], points[1], gauge[i], tuple(chosen.tolist())))
    record.pictures[model.digest, canonical_json(threat)] = exhibits


def _exhibit(net, i, y, x0, adversarial, random, gauge, parameters=None) -> Exhibit:
    with torch.no_grad():
        logits = net(torch.stack([x0, adversarial, random])).numpy()
    arrays = [t.numpy().astype(np.float32) for t in (x0, adversarial, random)]
    return Exhibit(str(1497 + i), int(y[i]), *arrays, logits, float(gauge), True, parameters)


def _claim(record, model, threat, clean, worst, lower, gauge) -> None:
    _, _, _, y = digits()
    samples = []
    for i in range(len(y)):
        proven = None if lower is None else float(lower[i])
        if clean[i] <= 0:
            verdict, by = Verdict.MISCLASSIFIED, "clean"
        elif worst[i] <= 0:
            verdict, by = Verdict.BROKEN, "apgd-ce"
        elif proven is not None and proven > 0:
            verdict, by = Verdict.CERTIFIED, "interval"
        else:
            verdict, by = Verdict.OPEN, "apgd-ce"
        near = float(gauge[i]) if verdict is Verdict.BROKEN else None
        bounds = (proven, float(worst[i]))
        samples.append(SampleResult(str(1497 + i), int(y[i]), verdict, *bounds, by, 0.01, 20, 20, near))
    broken = sum(s.verdict is Verdict.BROKEN for s in samples)
    proved = sum(s.verdict is Verdict.CERTIFIED for s in samples)
    parameters = {"steps": 20, "restarts": 1, "loss": "ce"}
    methods = [
        MethodRow("clean", "1", {}, 0, "upper", 300, int((clean <= 0).sum()), 0.02, 300, 0, 0),
        MethodRow("apgd-ce", "1", parameters, 0, "upper", 300, broken, 1.3, 6000, 6000, 0),
    ]
    if lower is not None:
        methods.append(MethodRow("interval", "1", {}, 0, "lower", 300, proved, 0.1, 300, 0, 0))
    header = Header(model, json.loads(canonical_json(threat)), *label_of(threat))
    record.claim_rows.append(claim(header, samples, methods, (clean > 0).tolist()))

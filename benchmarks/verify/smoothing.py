"""Randomised smoothing: false certificates, the radius of a linear model, and a table of certified accuracy.

    python benchmarks/verify/smoothing.py [--images 200] [--n 10000]

1. False certificates at α = 0.05 on a half-space, whose radius is known: 1,000 images at one distance through CERTIFY
   itself, and 1,000 counts drawn from the binomial for each of several probabilities. Floor: no more than the 99.9 %
   limit of Bin(1000, 0.05).
2. The certified radius over the true one, as n grows, for several σ: it must rise towards 1 and never pass it.
3. Digits: one small network a noise, trained under it for some seconds; certified accuracy by radius (ℓ2 Gaussian, ℓ1
   uniform; ℓ∞ through ℓ2), α = 0.001 an image and the same with all images together, and the seconds of a certificate.

Writes benchmarks/results/verify/smoothing.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binom, norm
from torch import Tensor, nn

from saddlepoint.adapters import from_torch, smoothed
from saddlepoint.bound.smoothing import RandomizedSmoothing, lower_limit, radius_of
from saddlepoint.data import load
from saddlepoint.evaluation.versions import versions
from saddlepoint.spec import Noise, Smoothing

RESULT = Path(__file__).resolve().parents[1] / "results" / "verify" / "smoothing.json"
RUNS, ALPHA = 1000, 0.05
NOISES = (
    Noise("gaussian", 0.12),
    Noise("gaussian", 0.25),
    Noise("gaussian", 0.5),
    Noise("uniform", 0.5),
    Noise("uniform", 1.0),
)
RADII = {"gaussian": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), "uniform": (0.0, 0.1, 0.25, 0.5, 0.75)}


def half_space(distance: float, noise: Noise) -> tuple[Smoothing, Tensor]:
    """Class 1 iff x lies on the right side of a plane; the point's distance to it in ℓ2 (and ℓ1 along the axis)."""

    def base(x: Tensor) -> Tensor:
        return torch.stack([-x[:, 0], x[:, 0]], 1)

    return Smoothing(base, noise), torch.tensor([distance, 0.0], dtype=torch.float64)


def false_certificates() -> dict[str, Any]:
    limit = int(binom.ppf(0.999, RUNS, ALPHA))
    noise = Noise("gaussian", 0.5)
    smoothing, x = half_space(0.3, noise)
    method = RandomizedSmoothing(n0=10, n=500, alpha=ALPHA)
    found = method.certify(smoothing, x.expand(RUNS, 2), [str(i) for i in range(RUNS)])
    whole = int((found.radius > 0.3).sum())
    counts = {}
    for p in (0.51, 0.6, 0.8, 0.95, 0.999):
        true_radius = noise.scale * float(norm.ppf(p))
        drawn = binom.rvs(500, p, size=RUNS, random_state=0).tolist()
        counts[str(p)] = sum(radius_of(noise, lower_limit(k, 500, ALPHA)) > true_radius for k in drawn)
    ok = max(whole, *counts.values()) <= limit
    return {"runs": RUNS, "alpha": ALPHA, "limit_999": limit, "certify": whole, "by_probability": counts, "holds": ok}


def radius_of_a_linear_model() -> list[dict[str, float]]:
    rows = []
    for scale in (0.15, 0.3, 1.0):
        for n in (1_000, 10_000, 100_000, 1_000_000):
            smoothing, x = half_space(0.3, Noise("gaussian", scale))
            found = RandomizedSmoothing(n0=100, n=n, alpha=0.001).certify(smoothing, x[None], ["0"])
            rows.append({"sigma": scale, "n": n, "radius_over_true": float(found.radius[0]) / 0.3})
    return rows


def trained(noise: Noise, epochs: int = 30) -> nn.Module:
    """A small network on digits, trained on noisy copies."""
    data = load("digits:train")
    batch = data.take(list(range(len(data))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(batch.x)).split(128):
                x = batch.x[index]
                gaussian = noise.kind == "gaussian"
                eta = torch.randn_like(x) if gaussian else 2 * torch.rand_like(x) - 1
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x + noise.scale * eta), batch.y[index]).backward()
                optimiser.step()
    return net.eval()


def digits(noise: Noise, images: int, n: int) -> dict[str, Any]:
    data = load("digits:test")
    batch = data.take(list(range(images)))
    model = smoothed(from_torch(trained(noise), (0, 1), shape=(1, 8, 8)), noise)
    how = model.smoothing
    if how is None:
        raise RuntimeError("a smoothed model says how it is smoothed")
    method = RandomizedSmoothing(n0=100, n=n, alpha=0.001)
    begun = time.perf_counter()
    found = method.certify(how, batch.x, batch.ids)
    seconds = (time.perf_counter() - begun) / images
    right = found.label == batch.y
    together = RandomizedSmoothing(n0=100, n=n, alpha=0.001, images=images)
    limits = [
        lower_limit(int(k), int(d), together.failure) if d else 0.0
        for k, d in zip(found.votes, found.drawn, strict=True)
    ]
    joint = torch.tensor([radius_of(noise, p) for p in limits], dtype=torch.float64)
    norm_name = "l2" if noise.kind == "gaussian" else "l1"
    table = {}
    for radius in RADII[noise.kind]:
        each, all_ = (float((right & (r > radius)).double().mean()) for r in (found.radius, joint))
        table[str(radius)] = {"certified": each, "certified_together": all_}
    linf = {}
    if noise.kind == "gaussian":  # ‖δ‖₂ ≤ √64 ‖δ‖_∞
        for size in (0.01, 0.03, 0.05, 0.1):
            linf[str(size)] = float((right & (found.radius > size * math.sqrt(64))).double().mean())
    return {
        "noise": noise.kind, "scale": noise.scale, "norm": norm_name, "images": images, "n": n, "alpha": 0.001,
        "abstained": float((found.answers < 0).double().mean()), "by_radius": table, "linf_through_l2": linf,
        "seconds_a_certificate": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--n", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "versions": versions(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "false_certificates": false_certificates(),
        "linear_model": radius_of_a_linear_model(),
        "digits": [digits(noise, options.images, options.n) for noise in NOISES],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["false_certificates"]))
    for row in result["digits"]:
        shares = "  ".join(f"{r}: {v['certified']:.3f}" for r, v in row["by_radius"].items())
        print(f"{row['noise']} {row['scale']}: {shares}   {row['seconds_a_certificate']:.3f} s")


if __name__ == "__main__":
    main()

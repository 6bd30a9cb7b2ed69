"""`saddlepoint demo`: the main job on embedded data, from two trainings to one report that compares them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import nn

from saddlepoint.adapters import load, save_weights
from saddlepoint.adapters.architectures import build
from saddlepoint.cli.files import write
from saddlepoint.cli.progress import follow
from saddlepoint.cli.threats import parse_threats
from saddlepoint.cli.whole import Whole
from saddlepoint.data import load as load_data
from saddlepoint.evaluation import Request, Work, plan_named
from saddlepoint.evaluation import run as carry_out
from saddlepoint.geometry import Box, Linf
from saddlepoint.ledger import Ledger
from saddlepoint.report.console import summary_lines
from saddlepoint.report.html import html_report
from saddlepoint.report.json_report import json_report
from saddlepoint.training import Adversarial, Measure, Objective, Standard, Trainer, epochs, fresh

_ARCHITECTURE = "wk17"
_THREATS = ("linf:0.03", "linf:0.06", "linf:0.1", "spatial:rot=15,shift=0.5")
_OWN = """The same with your own model, in three lines:
  saddlepoint check MODEL --data DATA      # MODEL: net.onnx, net.pt2, package.module:factory, …
  saddlepoint run MODEL --data DATA --threat linf:8/255 --budget 10m --ledger runs/mine.ledger
  saddlepoint report runs/mine.ledger --html report.html"""


@dataclass(frozen=True)
class _Recipe:
    """One of the two models of the demo."""

    name: str
    objective: Objective
    trainer: Trainer


def demo(*, output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("demo"), seed: Whole = 0) -> int:
    """Train a standard and a robust network on scikit-learn's digits, evaluate both, write one report.

    Takes about a minute on two cores; needs no network and opens nothing.

    Parameters
    ----------
    output: folder for the report, the ledger and the two networks; a finished demo is resumed, not repeated
    """
    begun = time.monotonic()
    torch.set_num_threads(1)  # layers this small only wait for each other on several threads
    output.mkdir(parents=True, exist_ok=True)
    test = load_data("digits:test")
    path = output / "demo.ledger"
    with Ledger(path) as book:
        for recipe in _recipes(seed):
            weights = output / f"{recipe.name}.safetensors"
            if not weights.exists():
                _train(recipe, weights, book, seed)
            request = Request(
                model=load(str(weights)),
                data=test,
                threats=parse_threats(_THREATS),
                plan=plan_named("standard"),
                work=Work(seed=seed),
                model_spec=str(weights),
            )
            with follow() as watch:
                carry_out(request, book, watch)
        for line in summary_lines(book.claims()):
            print(line)
        report = output / "report.html"
        write(report, html_report(book, str(path)))
        write(output / "report.json", json_report(book))
    print(f"\nreport: {report}   evidence: {path}   {time.monotonic() - begun:.0f} s\n\n{_OWN}")
    return 0


def _recipes(seed: int) -> tuple[_Recipe, ...]:
    ball = Linf("0.1").within(Box(0, 1))
    return (
        _Recipe("standard", Standard(), Trainer(epochs=12, seed=seed)),
        _Recipe("adversarial", Adversarial(ball, steps=7), Trainer(epochs=20, warm_up=5, seed=seed)),
    )


def _train(recipe: _Recipe, weights: Path, book: Ledger, seed: int) -> None:
    train, test = load_data("digits:train"), load_data("digits:test")
    shape, classes = tuple(train.shape), train.classes
    net = _network(shape, classes, seed)
    measure = Measure(test, Linf("0.06").within(Box(0, 1)))
    print(f"training {recipe.name}: {recipe.trainer.epochs} epochs of {len(train)} samples", file=sys.stderr)
    curve = [epoch.event(recipe.name) for epoch in epochs(net, train, recipe.objective, recipe.trainer, measure, None)]
    domain = {"arch": _ARCHITECTURE, "shape": list(shape), "classes": classes, "domain": [0.0, 1.0]}
    save_weights(weights, net, domain)
    with book.transaction():
        for event in curve:
            book.add_event(event)


def _network(shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Freshly drawn weights from a local stream of the seed: the global generator stays where it was."""
    return fresh(build(_ARCHITECTURE, shape, classes), seed)

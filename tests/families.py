"""One instance of each of the 13 families of shared/data/vnnlib: its network and its property's box."""

from __future__ import annotations

import csv
import gzip
import re
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from paths import SHARED

FOLDER = SHARED / "vnnlib"
LIMIT = re.compile(r"\(\s*assert\s*\(\s*(<=|>=)\s+X_(\d+)\s+([-+0-9.eE]+)\s*\)\s*\)")


@cache
def instances() -> dict[str, list[tuple[Path, Path]]]:
    """Family -> (network, property) of every instance, in the file's order."""
    found: dict[str, list[tuple[Path, Path]]] = {}
    with (FOLDER / "instances.csv").open() as rows:
        for row in csv.DictReader(rows):
            found.setdefault(row["benchmark"], []).append((FOLDER / row["onnx"], FOLDER / row["vnnlib"]))
    return found


def smallest(family: str) -> tuple[Path, Path]:
    """The instance with the smallest network file."""
    return min(instances()[family], key=lambda pair: pair[0].stat().st_size)


def box(path: Path) -> tuple[Tensor, Tensor]:
    """lower, upper (d,) float64 of a property whose input is one box, written limit by limit."""
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    sides: dict[str, dict[int, float]] = {">=": {}, "<=": {}}
    for sign, place, number in LIMIT.findall(text):
        keep = max if sign == ">=" else min
        here = sides[sign]
        here[int(place)] = keep(here.get(int(place), float(number)), float(number))
    lower, upper = (torch.tensor([side[i] for i in sorted(side)], dtype=torch.float64) for side in sides.values())
    if lower.shape != upper.shape or not bool((lower <= upper).all()):
        raise ValueError(f"{path} is not one box")
    return lower, upper

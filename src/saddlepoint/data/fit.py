"""Do this data and this model belong together? Said before anything is run."""

from __future__ import annotations

import math

import torch

from saddlepoint.core.errors import DataError, InputOutsideDomain
from saddlepoint.data.samples import Samples
from saddlepoint.spec import Model


def check_against(data: Samples, model: Model) -> None:
    """Shape, classes and values of the data against the model's. One pass over the values where needed.

    Raises DataError (shape, labels) or InputOutsideDomain (with the usual causes).
    """
    if data.shape != model.shape:
        same = math.prod(data.shape) == math.prod(model.shape)
        raise DataError(
            f"The samples of {data.spec} have shape {data.shape}, {model.name} takes {model.shape}.",
            f"data.with_shape({model.shape}) presents them so." if same else "Resize the data, or name another model.",
        )
    if int(data.labels.max()) >= model.classes:
        row = int(data.labels.argmax())
        raise DataError(
            f"Label {int(data.labels[row])} of {data.spec} (id {data.ids[row]}) is not among the "
            f"{model.classes} classes of {model.name}.",
            "Number the classes as the model does, from 0.",
        )
    if _inside_by_type(data, model):
        return
    for batch in data.batches():
        inside = model.domain.contains(batch.x, batch.x)
        if not bool(inside.all()):
            _refuse(data, model, batch.ids[int(inside.int().argmin())])


def _inside_by_type(data: Samples, model: Model) -> bool:
    """Whether every possible value lies in the domain: uint8 images in a domain that holds [0, 1]."""
    if data.rows.dtype.name not in ("uint8", "bool"):
        return False
    lower, upper = model.domain.limits(torch.zeros(1, *data.shape))
    return bool((lower <= 0).all()) and bool((upper >= 1).all())


def _refuse(data: Samples, model: Model, first: str) -> None:
    low, high = data.exact_range
    if low >= 0 and 1 < high <= 255 and max(model.domain.upper) <= 1:
        remedy = "Values 0..255? Divide by 255, or save them as uint8, which becomes /255 here."
    elif min(model.domain.lower) >= 0 and low < 0:
        remedy = "Normalised images? Keep them raw and give the model mean= and std= (--mean, --std)."
    else:
        remedy = "Give the model's true domain (--domain), in the data's units."
    raise InputOutsideDomain(
        f"{data.spec} has values from {low:.4g} to {high:.4g}; the domain of {model.name} is {model.domain}; "
        f"the first sample outside is {first}.",
        remedy,
    )

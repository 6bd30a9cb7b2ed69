"""Options that several verbs share, and loading what they name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from saddlepoint.adapters import LoadOptions, load
from saddlepoint.cli.whole import whole
from saddlepoint.core.arithmetic import exact
from saddlepoint.core.errors import InputError
from saddlepoint.data import Data
from saddlepoint.data import load as load_data
from saddlepoint.ledger import ModelRow
from saddlepoint.spec import Model


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """How to load a MODEL that does not carry all of it itself."""

    domain: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="legal inputs, e.g. 0,1")] = None
    mean: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="normalisation inside the model, e.g. 0.49,0.48,0.45")
    ] = None
    std: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="normalisation inside the model, one per channel")
    ] = None
    arch: Annotated[str | None, Parameter(help="of a weights file: a built-in name or module:factory")] = None
    classes: Annotated[
        int | None, Parameter(converter=whole, help="number of classes, where it cannot be found out")
    ] = None
    outputs: Annotated[str, Parameter(help="auto, logits or probabilities")] = "auto"
    device: Annotated[str, Parameter(help="cpu, cuda, cuda:1, mps")] = "cpu"
    eot: Annotated[
        int | None, Parameter(converter=whole, help="of a random model, evaluate the mean of this many draws")
    ] = None

    smooth: Annotated[str | None, Parameter(help="evaluate the smoothed model: sigma=0.25,n0=100,n=10000")] = None

    def stored(self) -> dict[str, Any]:
        """What the ledger keeps, so that `replay` loads the same model; the device is not part of it."""
        return {k: v for k, v in asdict(self).items() if v is not None and k != "device" and v != "auto"}

    def load_options(self, shape: tuple[int, ...] | None) -> LoadOptions:
        """The same for adapters. Raises InputError for numbers that are none and devices that are not there."""
        domain = _numbers("--domain", self.domain)
        if domain is not None and len(domain) != 2:
            raise InputError(f"--domain {self.domain} has {len(domain)} numbers.", "Write --domain 0,1.")
        return LoadOptions(
            domain=None if domain is None else (domain[0], domain[1]),
            mean=_numbers("--mean", self.mean),
            std=_numbers("--std", self.std),
            arch=self.arch,
            device=_device(self.device),
            classes=self.classes,
            shape=shape,
            outputs=self.outputs,
            eot=self.eot,
            smooth=self.smooth,
        )


@dataclass(frozen=True)
class ModelSource:
    """Loads a model by its text: what worker processes are given instead of a model."""

    spec: str
    options: LoadOptions

    def __call__(self) -> Model:
        """Load it."""
        return load(self.spec, self.options)


def load_both(model_spec: str, data_spec: str, options: ModelOptions) -> tuple[Model, Data, ModelSource]:
    """Data first (its shape helps to load weights), then the model, then the data in the model's shape."""
    data = load_data(data_spec)
    source = ModelSource(model_spec, options.load_options(tuple(data.shape)))
    model = source()
    if tuple(data.shape) != tuple(model.shape) and _entries(data.shape) == _entries(model.shape):
        data = data.with_shape(tuple(model.shape))  # (1, 28, 28) for a model that takes (784,)
    return model, data, source


def load_again(row: ModelRow, given: str | None, options: ModelOptions) -> Model:
    """The model as it was loaded then: what is typed now goes before what the ledger remembers."""
    stored = {key: value for key, value in row.options.items() if getattr(options, key) in (None, "auto")}
    spec = given or row.spec
    try:
        return load(spec, replace(options, **stored).load_options(tuple(row.shape)))
    except InputError as error:
        raise type(error)(f"{spec}: {error.what}", f"{error.remedy} Or give the model with --model.") from error


def workers_of(text: str) -> int | str:
    """`--workers 2` or `--workers ray`."""
    if text == "ray":
        return text
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--workers {text} is no number of workers.", "Write --workers 2, or --workers ray.")
    return int(text)


def _entries(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(exact(part)) for part in text.split(","))
    except InputError as error:
        raise InputError(f"{name} {text}: {error.what}", f"Write {name} 0.5 or {name} 0.49,0.48,0.45.") from error


def _device(name: str) -> str:
    try:
        if torch.empty(0, device=name).is_meta:
            raise RuntimeError("it holds shapes and no numbers")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} is not there: {str(error).splitlines()[0]}.", "Use --device cpu.") from error
    return name

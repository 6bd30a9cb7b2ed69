"""`load(spec, options)`: the MODEL argument of the command line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from saddlepoint.adapters.averaging import averaged
from saddlepoint.adapters.callables import from_callable
from saddlepoint.adapters.exported import load_pt2
from saddlepoint.adapters.http import from_http
from saddlepoint.adapters.imports import import_object, is_import_path
from saddlepoint.adapters.onnx_file import from_onnx
from saddlepoint.adapters.options import LoadOptions
from saddlepoint.adapters.sklearn_model import from_sklearn, load_skops
from saddlepoint.adapters.smoothing import parse_smoothing, smoothed
from saddlepoint.adapters.snapshot import copied
from saddlepoint.adapters.torch_module import Ways, adapt, takes
from saddlepoint.adapters.urls import is_url
from saddlepoint.adapters.weights import load_weights
from saddlepoint.core.errors import InputError, RefusedFile, UnsupportedModel
from saddlepoint.spec import Model

_FORMS = (
    "MODEL is NET.onnx, NET.pt2, NET.safetensors|.pt|.pth with --arch, package.module:factory, MODEL.skops, "
    "https://…, or a built-in name."
)
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
_BUILT_IN: dict[str, Callable[[LoadOptions], Model]] = {}


def register(name: str, loader: Callable[[LoadOptions], Model]) -> None:
    """Makes `name` a built-in MODEL name. Raises InputError where the name is taken."""
    if name in _BUILT_IN and _BUILT_IN[name] is not loader:
        raise InputError(f"The built-in name {name!r} is taken.", "Choose another name.")
    _BUILT_IN[name] = loader


def load(spec: str, options: LoadOptions | None = None) -> Model:
    """The model named by `spec`.

    Raises InputError and its children: RefusedFile (pickles, damaged files), UnsupportedModel (no
    classifier), MissingExtra, ImporterDisagreement, NonFinite.
    """
    options = options or LoadOptions()
    model = _loaded(spec, options)
    if options.smooth is not None:
        if options.eot is not None:
            raise InputError("--smooth and --eot are two ways to average.", "Give one of them.")
        noise, counting, denoiser = parse_smoothing(options.smooth)
        return smoothed(model, noise, counting, denoiser)
    return model if options.eot is None else averaged(model, options.eot)


def _loaded(spec: str, options: LoadOptions) -> Model:
    if is_url(spec):
        _no_normalisation(options, "a service")
        return from_http(spec, options.domain, shape=options.shape, classes=options.classes, outputs=options.outputs)
    if spec in _BUILT_IN:
        return _BUILT_IN[spec](options)
    path = Path(spec)
    endings = [s.lower() for s in path.suffixes]
    ending = "".join(endings[-2:]) if endings[-1:] == [".gz"] else (endings[-1] if endings else "")
    if ending in _PICKLES:
        raise RefusedFile(
            f"{spec} is a pickle: reading it runs whatever code it holds.",
            "scikit-learn: skops.io.dump(model, 'model.skops'); PyTorch: save the state dict; or give "
            "package.module:factory.",
        )
    loader = _loader(ending)
    if loader is not None:
        if not path.is_file():
            raise InputError(f"There is no file {spec}.", "Check the path.")
        return loader(path, options, path.stem.removesuffix(".onnx"))
    if is_import_path(spec):
        return from_object(import_object(spec), options, spec)
    raise InputError(f"{spec!r} names no model.", _FORMS)


def _loader(ending: str) -> Callable[[Path, LoadOptions, str], Model] | None:
    if ending in (".onnx", ".onnx.gz"):
        return _load_onnx
    if ending == ".pt2":
        return load_pt2
    if ending in (".safetensors", ".pt", ".pth"):
        return load_weights
    if ending == ".skops":
        return _load_skops
    return None


def _load_skops(path: Path, options: LoadOptions, name: str) -> Model:
    _no_normalisation(options, "a scikit-learn model")
    return load_skops(path, options, name)


def _load_onnx(path: Path, options: LoadOptions, name: str) -> Model:
    return from_onnx(
        path,
        options.domain,
        mean=options.mean,
        std=options.std,
        name=name,
        device=options.device,
        outputs=options.outputs,
    )


def from_object(value: Any, options: LoadOptions, spec: str) -> Model:
    """A model from whatever an import path names: Model, module, estimator, classifier function, or a
    factory (callable without required arguments) of one of these."""
    if isinstance(value, type) or (inspect.isroutine(value) and not _required(value)):
        try:
            value = value()
        except Exception as error:  # the user's own code may raise anything
            raise InputError(
                f"{spec}() raised {type(error).__name__}: {error}.", "Give a factory that works without arguments."
            ) from error
    if isinstance(value, Model):
        return value
    if isinstance(value, nn.Module):
        value = copied(value).to(options.device) if options.device != "cpu" else value
        return adapt(value, options.domain, _ways(value, options, spec))
    _no_normalisation(options, spec)
    if isinstance(value, BaseEstimator):
        return from_sklearn(value, options.domain, shape=options.shape, name=spec)
    if callable(value):
        return from_callable(
            value,
            options.domain,
            shape=options.shape,
            classes=options.classes,
            outputs=options.outputs,
            name=spec,
        )
    raise UnsupportedModel(
        f"{spec} is {type(value).__name__}.", "Name an nn.Module, an estimator, a function, or a factory of one."
    )


def _no_normalisation(options: LoadOptions, what: str) -> None:
    """Options that would be dropped silently are refused."""
    if options.mean is not None or options.std is not None:
        raise InputError(
            f"mean and std cannot be put in front of {what}.",
            "Normalise inside it (a pipeline with StandardScaler, a function of your own).",
        )


def _ways(net: nn.Module, options: LoadOptions, name: str) -> Ways:
    """The caller's options; a shape the module cannot take (the data's) is tried flat as well."""
    shape = options.shape
    if shape is not None and not takes(net, shape) and takes(net, (math.prod(shape),)):
        shape = (math.prod(shape),)
    return Ways(options.mean, options.std, shape, name, outputs=options.outputs, classes=options.classes)


def _required(function: Callable[..., Any]) -> bool:
    """Whether a function must be given an argument."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions have no signature
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind in kinds for p in parameters)

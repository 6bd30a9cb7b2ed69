"""`from_sklearn` and `.skops` files: scikit-learn classifiers as spec.Model."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.svm import SVC, NuSVC
from sklearn.utils.validation import check_is_fitted
from torch import nn

from saddlepoint.adapters.callables import ArrayFunction, from_callable, output_digest
from saddlepoint.adapters.options import Domain, LoadOptions, as_box
from saddlepoint.adapters.probe import probe_inputs
from saddlepoint.adapters.sklearn_module import rebuilt
from saddlepoint.adapters.snapshot import Deployed, frozen_copy
from saddlepoint.adapters.torch_module import Ways, finish
from saddlepoint.core.errors import ImporterDisagreement, InputError, RefusedFile, UnsupportedModel
from saddlepoint.core.extras import require
from saddlepoint.geometry import Box
from saddlepoint.spec import Model

_TOLERANCE = 1e-8  # float64 sums in another order


def from_sklearn(
    estimator: Any, domain: Domain | None, *, shape: tuple[int, ...] | None = None, name: str | None = None
) -> Model:
    """A model from a fitted scikit-learn classifier, computed in float64 as scikit-learn does.

    Linear classifiers, MLPs and linear two-class SVMs (behind scalers and PCA too) come with their graph;
    two-class kernel SVMs with gradients; everything else with scores: log p from `predict_proba`, else
    `decision_function`, else labels. `shape` presents the features as e.g. (1, 8, 8) images.
    Raises UnsupportedModel (a regressor, several outputs), InputError (not fitted).
    """
    name = name or type(estimator).__name__
    box = as_box(domain, name)
    _check_kind(estimator, name)
    features = int(estimator.n_features_in_)
    size = tuple(shape) if shape is not None else (features,)
    if math.prod(size) != features:
        raise InputError(
            f"{name} takes {features} features, inputs of shape {size} have {math.prod(size)}.",
            "Give the data the model was fitted on.",
        )
    notes = _class_notes(estimator)
    module = rebuilt(estimator)
    if module is None:
        return _from_scores(estimator, box, size, name, notes)
    flat = nn.Sequential(nn.Flatten(), module).to(torch.float64)
    _compare(estimator, flat, box, size, name)
    return finish(Deployed(frozen_copy(flat), None), box, size, name, Ways(outputs="logits"), notes)


_PLAIN = frozenset(
    {
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.link.Interval",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn.preprocessing._label.LabelBinarizer",
    }
)


def load_skops(path: Path, options: LoadOptions, name: str) -> Model:
    """A model from a `.skops` file that holds trusted types only. Raises RefusedFile."""
    io = require("skops.io")
    try:
        found = io.get_untrusted_types(file=path)
        # scikit-learn's own helper classes (an optimiser's state, a tree's nodes) hold numbers and run nothing
        untrusted = [name for name in found if name not in _PLAIN]
        if untrusted:
            raise RefusedFile(
                f"{path} holds types that are not known to be safe: {', '.join(sorted(untrusted)[:5])}.",
                "Keep to scikit-learn's own estimators, or give package.module:factory.",
            )
        estimator = io.load(path, trusted=[name for name in found if name in _PLAIN])
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise RefusedFile(
            f"{path} is no readable skops file ({error}).", "It is truncated or damaged: copy it again."
        ) from error
    return from_sklearn(estimator, options.domain, shape=options.shape, name=name)


def _check_kind(estimator: Any, name: str) -> None:
    if not isinstance(estimator, BaseEstimator):
        raise UnsupportedModel(
            f"{name} is {type(estimator).__name__}, no scikit-learn estimator.", "Use from_callable."
        )
    if not is_classifier(estimator):
        raise UnsupportedModel(
            f"{name} is no classifier ({type(estimator).__name__}).", "Regressors and clusterings have no margin."
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise InputError(f"{name} is not fitted.", "Call fit before.") from error
    classes = getattr(estimator, "classes_", None)
    if classes is None or isinstance(classes, list):
        raise UnsupportedModel(f"{name} predicts several outputs at once.", "Give one classifier per output.")
    if len(classes) < 2:
        raise UnsupportedModel(f"{name} knows one class only.", "Fit it on at least two classes.")


def _class_notes(estimator: Any) -> list[str]:
    classes = estimator.classes_
    if classes.dtype.kind in "iu" and bool((classes == np.arange(len(classes))).all()):
        return []
    return [f"label k is the estimator's class number k of {classes.tolist()}"]


def _compare(estimator: Any, module: nn.Module, box: Box, size: tuple[int, ...], name: str) -> None:
    """The rebuilt module against the estimator itself, on points of the domain."""
    x = probe_inputs(box, size, 34).double()
    flat = x.flatten(1).numpy()
    with torch.no_grad():
        ours = module(x)
    if hasattr(estimator, "decision_function"):
        theirs = torch.from_numpy(np.asarray(estimator.decision_function(flat), np.float64)).reshape(len(x), -1)
    else:  # MLPs give probabilities only
        theirs = torch.from_numpy(np.asarray(estimator.predict_proba(flat), np.float64))
        ours = torch.cat([1 - ours.sigmoid(), ours.sigmoid()], 1) if ours.shape[1] == 1 else ours.softmax(1)
    worst = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else math.inf
    if not worst <= _TOLERANCE * max(1.0, float(theirs.abs().max())):
        raise ImporterDisagreement(
            f"{name} rebuilt in torch differs from scikit-learn by {worst:.3g}.",
            "Give a function of its scores instead (from_callable).",
        )


def _from_scores(estimator: Any, box: Box, size: tuple[int, ...], name: str, notes: list[str]) -> Model:
    """Access SCORES through the estimator's own methods; LABEL where it only predicts."""
    function, outputs, note = _scores(estimator)

    def flat(x: np.ndarray) -> Any:
        return function(x.reshape(len(x), -1))

    classes = len(estimator.classes_)
    call = ArrayFunction(flat, np.float64)
    model = from_callable(call, box, shape=size, classes=classes, outputs=outputs, backend="torch", name=name)
    # a function has no weights to digest: more points make it harder for two models to look alike
    mark = output_digest(name, model.fn, probe_inputs(box, size, 256), model.stochastic)
    return replace(model, digest=mark, notes=(*notes, *note, *model.notes))


def _scores(estimator: Any) -> tuple[Callable[[np.ndarray], Any], str, list[str]]:
    if hasattr(estimator, "decision_function"):
        if isinstance(estimator, (SVC, NuSVC)) and len(estimator.classes_) > 2:
            note = "scores are decision_function, the predicted class put first (pairs vote, and votes may tie)"
            return lambda x: _predicted_first(estimator, x), "logits", [note]
        return estimator.decision_function, "logits", []
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba, "probabilities", []
    classes = estimator.classes_
    return lambda x: np.searchsorted(classes, estimator.predict(x)), "auto", []


def _predicted_first(estimator: Any, x: np.ndarray) -> np.ndarray:
    """decision_function, its largest entry swapped with that of the class `predict` gives."""
    scores = np.array(estimator.decision_function(x))
    rows = np.arange(len(scores))
    said, largest = np.searchsorted(estimator.classes_, estimator.predict(x)), scores.argmax(1)
    scores[rows, said], scores[rows, largest] = scores[rows, largest], scores[rows, said]
    return scores

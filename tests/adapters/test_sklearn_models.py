"""scikit-learn classifiers: the labels are the estimator's own, the access what the estimator allows."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PowerTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from saddlepoint import adapters
from saddlepoint.adapters import LoadOptions
from saddlepoint.core.errors import InputError, RefusedFile, UnsupportedModel
from saddlepoint.spec import Access

X, Y = datasets.load_digits(return_X_y=True)
X = X / 16
GRAPH = {
    "logistic": LogisticRegression(max_iter=200),
    "ridge": RidgeClassifier(),
    "sgd": SGDClassifier(random_state=0),
    "linear svc": LinearSVC(random_state=0),
    "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "mlp relu": MLPClassifier((12, 8), max_iter=30, random_state=0),
    "mlp identity": MLPClassifier((6,), "identity", max_iter=10, random_state=0),
    "scaled": make_pipeline(StandardScaler(), MinMaxScaler((-1, 1)), MaxAbsScaler(), LogisticRegression(max_iter=50)),
    "pca": make_pipeline(PCA(8, whiten=True, random_state=0), RidgeClassifier()),
}
SCORES = {
    "tree": DecisionTreeClassifier(max_depth=6, random_state=0),
    "forest": RandomForestClassifier(8, random_state=0),
    "naive bayes": GaussianNB(),
    "power": make_pipeline(PowerTransformer(), RidgeClassifier()),
}


def fitted(estimator, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations on purpose
        return estimator.fit(X[:500], labels[:500])


@pytest.mark.parametrize("two", [False, True], ids=["ten classes", "two classes"])
@pytest.mark.parametrize("name", GRAPH)
def test_linear_and_mlp_come_with_their_graph(name, two):
    estimator = fitted(GRAPH[name], (Y > 4).astype(int) if two else Y)
    model = adapters.from_sklearn(estimator, (0, 1), shape=(1, 8, 8))
    x = torch.tensor(X[500:700]).reshape(-1, 1, 8, 8)  # float64: the estimator's own precision
    z = model(x)
    assert model.access == Access.GRAPH
    assert z.dtype == torch.float64
    assert (z.argmax(1).numpy() == estimator.predict(X[500:700])).all()
    assert torch.allclose(model.graph(x.to(model.graph.dtype)), z, rtol=1e-9, atol=1e-9)
    if hasattr(estimator, "decision_function"):
        own = estimator.decision_function(X[500:700])
        ours = (z[:, 1] - z[:, 0]).numpy() if two else z.numpy()
        assert np.allclose(ours, own, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("two", [False, True], ids=["ten classes", "two classes"])
@pytest.mark.parametrize("name", SCORES)
def test_trees_and_others_give_scores(name, two):
    estimator = fitted(SCORES[name], (Y > 4).astype(int) if two else Y)
    model = adapters.from_sklearn(estimator, (0, 1))
    z = model(torch.tensor(X[500:600]))
    assert model.access == Access.SCORES
    assert (z.argmax(1).numpy() == estimator.predict(X[500:600])).all()
    assert bool(torch.isfinite(z).all())  # log 0 would be -inf


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", "sigmoid"])
def test_support_vector_machines(kernel):
    pair = fitted(SVC(kernel=kernel), (Y > 4).astype(int))
    model = adapters.from_sklearn(pair, (0, 1))
    z = model(torch.tensor(X[500:600]))
    assert Access.GRADIENT in model.access
    assert np.allclose((z[:, 1] - z[:, 0]).numpy(), pair.decision_function(X[500:600]), atol=1e-9)
    many = fitted(SVC(kernel=kernel), Y)
    voted = adapters.from_sklearn(many, (0, 1))
    assert voted.access == Access.SCORES
    # votes may tie; the label is nevertheless the one predict gives
    assert (voted(torch.tensor(X[500:])).argmax(1).numpy() == many.predict(X[500:])).all()


def test_class_names_are_numbered_in_the_estimators_order():
    estimator = fitted(LogisticRegression(max_iter=50), np.where(Y > 4, "high", "low"))
    model = adapters.from_sklearn(estimator, (0, 1))
    assert any("['high', 'low']" in note for note in model.notes)


class Oracle(ClassifierMixin, BaseEstimator):
    """Predicts and gives no scores."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return self.classes_[(X[:, 0] > 0.5).astype(int)]


def test_an_estimator_without_scores_is_label_only():
    model = adapters.from_sklearn(Oracle().fit(X, Y > 4), (0, 1))
    assert model.access == Access.LABEL
    assert model.classes == 2


def test_what_is_no_fitted_classifier_is_refused():
    with pytest.raises(UnsupportedModel, match="no classifier"):
        adapters.from_sklearn(LinearRegression().fit(X, Y), (0, 1))
    with pytest.raises(InputError, match="not fitted"):
        adapters.from_sklearn(LogisticRegression(), (0, 1))
    with pytest.raises(UnsupportedModel, match="several outputs"):
        adapters.from_sklearn(DecisionTreeClassifier().fit(X, np.stack([Y, Y], 1)), (0, 1))
    with pytest.raises(InputError, match="64 features"):
        adapters.from_sklearn(RidgeClassifier().fit(X, Y), (0, 1), shape=(7,))
    with pytest.raises(InputError, match="domain"):
        adapters.from_sklearn(RidgeClassifier().fit(X, Y), None)


def test_skops_files_are_read_and_untrusted_ones_refused(tmp_path):
    skops = pytest.importorskip("skops.io")
    estimator = fitted(LogisticRegression(max_iter=50), Y)
    skops.dump(estimator, tmp_path / "m.skops")
    model = adapters.load(str(tmp_path / "m.skops"), LoadOptions(domain=(0, 1), shape=(1, 8, 8)))
    assert model.access == Access.GRAPH
    assert model.digest == adapters.from_sklearn(estimator, (0, 1), shape=(1, 8, 8)).digest
    with pytest.raises(InputError, match="mean and std"):
        adapters.load(str(tmp_path / "m.skops"), LoadOptions(domain=(0, 1), mean=0.5))
    skops.dump(Oracle().fit(X, Y), tmp_path / "own.skops")
    with pytest.raises(RefusedFile, match="Oracle"):
        adapters.load(str(tmp_path / "own.skops"), LoadOptions(domain=(0, 1)))

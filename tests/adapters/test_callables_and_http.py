"""Python functions and HTTP services as models."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from saddlepoint import adapters
from saddlepoint.adapters import LoadOptions
from saddlepoint.adapters.http import Endpoint
from saddlepoint.core.errors import InputError, UnsupportedModel
from saddlepoint.spec import Access

W = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def numpy_scores(x):
    assert isinstance(x, np.ndarray)
    return x @ W


def torch_scores(x):
    return x @ torch.from_numpy(W)


def test_functions_on_tensors_and_on_arrays():
    x = torch.rand(4, 5)
    a = adapters.from_callable(torch_scores, (0, 1), shape=(5,))
    b = adapters.from_callable(numpy_scores, (0, 1), shape=(5,))
    c = adapters.from_callable(lambda v: np.asarray(v).argmax(1), (0, 1), shape=(5,), classes=5)
    assert (a.access, b.access, c.access) == (Access.GRADIENT, Access.SCORES, Access.LABEL)
    assert torch.allclose(a(x), b(x), atol=1e-6)
    assert (c(x).argmax(1) == x.argmax(1)).all()
    assert len({a.digest, b.digest, c.digest}) == 3
    assert a.digest == adapters.from_callable(torch_scores, (0, 1), shape=(5,)).digest
    other = adapters.from_callable(lambda v: torch_scores(v) * 1.5, (0, 1), shape=(5,), name=a.name)
    assert other.digest != a.digest


def test_a_random_function_is_found_out():
    model = adapters.from_callable(lambda v: torch_scores(v) + torch.randn(len(v), 3), (0, 1), shape=(5,))
    assert model.stochastic


def test_functions_that_are_no_classifiers():
    with pytest.raises(InputError, match="shape="):
        adapters.from_callable(torch_scores, (0, 1), shape=None)
    with pytest.raises(UnsupportedModel, match="fails on inputs"):
        adapters.from_callable(torch_scores, (0, 1), shape=(4,))
    with pytest.raises(UnsupportedModel, match="str"):
        adapters.from_callable(lambda v: "cat", (0, 1), shape=(4,))
    with pytest.raises(InputError, match="backend"):
        adapters.from_callable(torch_scores, (0, 1), shape=(5,), backend="jax")


def test_functions_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_functions.py").write_text(
        "import torch\n"
        "def score(x):\n    return x[:, :3] * 2\n"
        "def factory(scale=2):\n    return torch.nn.Linear(5, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = LoadOptions(domain=(0, 1), shape=(5,))
    assert adapters.load("my_functions:score", options).access == Access.GRADIENT
    assert adapters.load("my_functions:factory", options).access == Access.GRAPH


class Service(BaseHTTPRequestHandler):
    """Answers according to the path."""

    seen: list = []  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Service.seen.append((self.path, self.headers.get("Authorization")))
        x = np.array(body["inputs"], np.float32)
        z = x.reshape(len(x), -1) @ W
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        kind = self.path.split("?")[0].strip("/")
        answers = {
            "scores": {"scores": z.tolist()},
            "probs": {"probabilities": p.tolist()},
            "labels": {"labels": z.argmax(1).tolist()},
            "bare": z.argmax(1).tolist(),
            "odd": {"weather": "fine"},
            "ragged": {"scores": [[1.0], [1.0, 2.0]]},
            "short": {"scores": z[:1].tolist()},
        }
        self.send_response(500 if kind == "broken" else 200)
        self.end_headers()
        self.wfile.write(b"<html>" if kind == "html" else json.dumps(answers.get(kind, {})).encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def host():
    pytest.importorskip("httpx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "access"),
    [("scores", Access.SCORES), ("probs", Access.SCORES), ("labels", Access.LABEL), ("bare", Access.LABEL)],
)
def test_services_answer_scores_or_labels(host, path, access):
    model = adapters.load(f"http://{host}/{path}", LoadOptions(domain=(0, 1), shape=(5,), classes=3))
    x = torch.rand(6, 5)
    assert model.access == access
    assert (model(x).argmax(1).numpy() == (x.numpy() @ W).argmax(1)).all()


def test_no_secret_of_an_address_is_kept(host):
    Service.seen.clear()
    secret = f"http://me:hunter2@{host}/scores?token=s3cr3t"
    model = adapters.from_http(secret, (0, 1), shape=(5,))
    assert Service.seen[0][0] == "/scores?token=s3cr3t"  # but the service does get it
    assert Service.seen[0][1].startswith("Basic ")
    kept = f"{model.name} {model.notes} {model.digest} {model!r} {adapters.redact(secret)}"
    for word in ("hunter2", "s3cr3t", "me:"):
        assert word not in kept
    plain = adapters.from_http(f"http://{host}/scores?token=other", (0, 1), shape=(5,))
    assert plain.digest == model.digest
    endpoint = Endpoint("http://me:hunter2@127.0.0.1:9/x?token=s3cr3t", timeout=0.5, retries=0)
    with pytest.raises(InputError, match="cannot be reached") as caught:
        endpoint(torch.rand(1, 5))
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(endpoint) + str(caught.value)
    assert "s3cr3t" not in repr(endpoint) + str(caught.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [("odd", "weather"), ("ragged", "rectangle"), ("short", "1 rows"), ("html", "JSON"), ("broken", "status 500")],
)
def test_services_that_answer_nonsense_are_refused(host, path, says):
    with pytest.raises(InputError, match=says):
        adapters.from_http(f"http://{host}/{path}", (0, 1), shape=(5,))

"""MODEL specs: weights, exported programs, ONNX, import paths; and every file that is refused."""

import gzip
import json
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from paths import SHARED
from saddlepoint import adapters, data
from saddlepoint.adapters import LoadOptions
from saddlepoint.core.errors import InputError, RefusedFile, SaddlepointError, UnsupportedModel
from saddlepoint.spec import Access

UNIT = LoadOptions(domain=(0, 1))
ONNX = SHARED / "models" / "onnx"


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()


@pytest.fixture
def digits_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return adapters.build("mlp:16", (1, 8, 8), 10).eval()


# -- weights ---------------------------------------------------------------------------------------------
def test_a_weights_file_of_ours_carries_everything(tmp_path, digits_net):
    file = tmp_path / "m.safetensors"
    about = {"arch": "mlp:16", "shape": [1, 8, 8], "classes": 10, "domain": [0, 1], "mean": [0.5], "std": [0.25]}
    adapters.save_weights(file, digits_net, about)
    model = adapters.load(str(file))
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(model(x), digits_net((x - 0.5) / 0.25), atol=1e-6)
    assert (model.shape, model.classes, model.access) == ((1, 8, 8), 10, Access.GRAPH)
    assert adapters.load(str(file), LoadOptions(domain=(-1, 2), mean=0.0, std=1.0)).domain.lower == (-1.0,)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(InputError, match="archh"):
        adapters.save_weights(file, digits_net, {"archh": "mlp:16"})


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_bare_weights_need_architecture_and_domain(tmp_path, digits_net, ending):
    file = tmp_path / f"m.{ending}"
    if ending == "safetensors":
        adapters.save_weights(file, digits_net, {})
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in digits_net.state_dict().items()}}, file)
    with pytest.raises(InputError, match=r"--arch.*resnet20"):
        adapters.load(str(file), UNIT)
    with pytest.raises(InputError, match="--domain"):
        adapters.load(str(file), LoadOptions(arch="mlp:16"))
    model = adapters.load(str(file), LoadOptions(domain=(0, 1), arch="mlp:16"))
    x = torch.rand(2, *model.shape)
    assert torch.equal(model(x), digits_net(x))
    with pytest.raises(InputError, match="do not fit resnet20"):
        adapters.load(str(file), LoadOptions(domain=(0, 1), arch="resnet20"))


def test_a_users_factory_as_architecture(tmp_path, monkeypatch, net):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save(net.state_dict(), "w.pt")
    model = adapters.load("w.pt", LoadOptions(domain=(0, 1), arch="my_nets:make", shape=(1, 8, 8)))
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(x), net(x).detach(), atol=1e-6, rtol=1e-5)  # another layout, other rounding
    with pytest.raises(InputError, match=r"not an nn\.Module"):
        adapters.load("w.pt", LoadOptions(domain=(0, 1), arch="my_nets:wrong"))
    whole = adapters.load("my_nets:make", LoadOptions(domain=(0, 1), shape=(1, 8, 8)))
    assert (whole.name, whole.classes) == ("my_nets:make", 4)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemError('code ran while loading')",))


@pytest.mark.parametrize("ending", ["pkl", "pickle", "joblib", "dill"])
def test_pickles_are_refused_unread(tmp_path, ending):
    file = tmp_path / f"m.{ending}"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RefusedFile, match="skops"):
        adapters.load(str(file), UNIT)


def test_pt_files_that_need_unpickling_are_refused(tmp_path, net):
    file = tmp_path / "m.pt"
    for content in (net, {"state_dict": net.state_dict(), "args": Evil()}):
        torch.save(content, file)
        with pytest.raises(RefusedFile, match="state_dict"):
            adapters.load(str(file), LoadOptions(domain=(0, 1), arch="wk17"))
    file.write_bytes(pickle.dumps(Evil()))  # a bare pickle by another name
    with pytest.raises(RefusedFile):
        adapters.load(str(file), LoadOptions(domain=(0, 1), arch="wk17"))
    torch.save([1, 2], file)
    with pytest.raises(RefusedFile, match="no state dict"):
        adapters.load(str(file), LoadOptions(domain=(0, 1), arch="wk17"))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/code/__torch__.py", "")
    with pytest.raises(RefusedFile, match="TorchScript"):
        adapters.load(str(file), LoadOptions(domain=(0, 1), arch="wk17"))


@pytest.mark.parametrize("kind", ["pt", "safetensors", "pt2", "onnx", "skops"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
def test_truncated_files_are_clear_errors(tmp_path, digits_net, kind, keep):
    file = tmp_path / f"m.{kind}"
    _write(file, kind, digits_net)
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if keep in (0, 10) else int(keep * len(whole))])
    with pytest.raises(SaddlepointError) as caught:
        adapters.load(str(file), LoadOptions(domain=(0, 1), arch="mlp:16"))
    assert str(file) in str(caught.value)


def _write(file, kind, net):
    if kind == "pt":
        torch.save(net.state_dict(), file)
    elif kind == "safetensors":
        adapters.save_weights(file, net, {"arch": "mlp:16"})
    elif kind == "pt2":
        torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),)), file)
    elif kind == "onnx":
        file.write_bytes((ONNX / "Convnet_avgpool.onnx").read_bytes())
    else:
        skops = pytest.importorskip("skops.io")
        from sklearn.linear_model import RidgeClassifier

        skops.dump(RidgeClassifier().fit(np.eye(4), [0, 1, 2, 0]), file)


# -- exported programs -----------------------------------------------------------------------------------
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("normalise", [{}, {"mean": 0.5, "std": 0.25}])
def test_exported_programs_take_any_batch(tmp_path, net, dynamic, normalise):
    file = tmp_path / "m.pt2"
    sizes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=sizes), file)
    model = adapters.load(str(file), LoadOptions(domain=(0, 1), **normalise))
    x = torch.rand(5, 1, 8, 8)
    inner = (x - normalise.get("mean", 0)) / normalise.get("std", 1)
    assert model.access == Access.GRAPH
    assert torch.allclose(model(x), net(inner), atol=1e-5)
    assert torch.allclose(model.graph(x), net(inner), atol=1e-5)
    assert model(x[:1]).shape == (1, 4)
    assert model.digest == adapters.load(str(file), LoadOptions(domain=(0, 1), **normalise)).digest


def test_exported_programs_that_would_run_code_are_refused(tmp_path, net):
    source, file = tmp_path / "a.pt2", tmp_path / "b.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),)), source)

    def rewritten(change):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
            for member in old.namelist():
                new.writestr(member, change(member, old.read(member)))
        with pytest.raises(RefusedFile, match="could run code"):
            adapters.load(str(file), UNIT)

    rewritten(lambda n, b: pickle.dumps(Evil()) if n.endswith("model.pt") else b)
    rewritten(lambda n, b: b.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in n else b)
    evil = json.dumps({"expr_str": "__import__('os').getpid()"}).encode()
    rewritten(lambda n, b: evil if n.endswith("models/model.json") else b)
    evil = json.dumps({"expr_str": "exec(chr(49))"}).encode()
    rewritten(lambda n, b: evil if n.endswith("models/model.json") else b)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
        new.writestr("a/data/constants/custom_obj_0", pickle.dumps(Evil()))
    with pytest.raises(RefusedFile, match="custom_obj_0"):
        adapters.load(str(file), UNIT)


# -- ONNX ------------------------------------------------------------------------------------------------
UPSTREAM = json.loads((ONNX / "index.json").read_text())
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
NORMALISE = {"resnet_2b.onnx": CIFAR, "cifar_base_kw.onnx": {"mean": (0.485, 0.456, 0.406), "std": 0.225}}


@pytest.mark.parametrize("entry", UPSTREAM, ids=lambda e: e["file"])
def test_upstream_onnx_has_the_accuracy_measured_with_onnxruntime(entry):
    model = adapters.load(str(ONNX / entry["file"]), LoadOptions(domain=(0, 1), **NORMALISE.get(entry["file"], {})))
    spec = SHARED / "cifar10" / "cifar10_test.npz"
    if entry["dataset"] == "mnist":
        spec = f"{SHARED / 'mnist.npz'}:test"
    batch = data.load(str(spec)).with_shape(model.shape).take(range(1000))
    with torch.no_grad():
        k = int((model(batch.x).argmax(1) == batch.y).sum())
    assert model.access == Access.GRAPH
    assert any("onnxruntime differ by at most" in note for note in model.notes)
    assert abs(k - round(1000 * entry["measured_clean_accuracy"])) <= 1


def test_onnx_and_weights_are_one_function(tmp_path):
    name = SHARED / "models" / "mnist_wk17_certified_eps0.1"
    torch_model = adapters.load(f"{name}.pt", LoadOptions(domain=(0, 1), arch="wk17"))
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress((SHARED / "models" / f"{name.name}.onnx").read_bytes()))
    x = torch.rand(4, 1, 28, 28)
    for spec in (f"{name}.onnx", str(packed)):
        assert torch.allclose(adapters.load(spec, UNIT)(x), torch_model(x), atol=1e-4)


def small_onnx(path, nodes, constants, outputs=("y",), shape=("N", 4)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_an_onnx_softmax_tail_is_left_out(tmp_path):
    file = tmp_path / "soft.onnx"
    w = np.arange(12).reshape(4, 3) / 10 - 0.5
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=1)]
    small_onnx(file, nodes, {"w": w})
    model = adapters.load(str(file), UNIT)
    x = torch.rand(3, 4)
    assert model.access == Access.GRAPH
    assert torch.allclose(model(x), x @ torch.tensor(w, dtype=torch.float32), atol=1e-6)


def test_an_onnx_regressor_or_detector_is_refused(tmp_path):
    file = tmp_path / "maps.onnx"
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    small_onnx(file, nodes, {"w": np.ones((3, 1, 1, 1))}, shape=("N", 1, 6, 6))
    with pytest.raises(UnsupportedModel, match="segmentation"):
        adapters.load(str(file), UNIT)


def test_an_importer_that_disagrees_is_refused(tmp_path, monkeypatch):
    from saddlepoint.core.errors import ImporterDisagreement
    from saddlepoint.graph import agreement

    truth = agreement.Runtime.__call__
    monkeypatch.setattr(agreement.Runtime, "__call__", lambda self, x: truth(self, x) + 0.01)
    with pytest.raises(ImporterDisagreement):
        adapters.load(str(ONNX / "Convnet_avgpool.onnx"), UNIT)


# -- names -----------------------------------------------------------------------------------------------
def test_specs_that_name_nothing():
    for spec, says in [
        ("nothing", "MODEL is"),
        ("no_such.onnx", "no file"),
        ("no.such.module:f", "cannot be imported"),
        ("math:no_such", "has no"),
        ("math:pi", "float"),
    ]:
        with pytest.raises(InputError, match=says):
            adapters.load(spec, UNIT)


def test_built_in_names_can_be_registered(digits_net):
    def loader(options):
        return adapters.from_torch(digits_net, options.domain or (0, 1), shape=(1, 8, 8))

    adapters.register("a-test-model", loader)
    adapters.register("a-test-model", loader)
    assert adapters.load("a-test-model").classes == 10
    with pytest.raises(InputError, match="taken"):
        adapters.register("a-test-model", lambda options: loader(options))

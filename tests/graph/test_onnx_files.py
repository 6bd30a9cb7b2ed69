"""Real ONNX files: every one is read and agrees with onnxruntime; damaged ones and outside references are refused."""

from __future__ import annotations

import gzip
import shutil

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from paths import SHARED
from saddlepoint.core.errors import InputError, RefusedFile, UnsupportedModel
from saddlepoint.geometry.box import Box
from saddlepoint.graph.agreement import TOLERANCE, agree_with_onnxruntime
from saddlepoint.graph.onnx_reader import read_onnx

if not SHARED.exists():
    pytest.skip("the measuring material (shared/data) is not beside the project", allow_module_level=True)

MODELS = [*sorted((SHARED / "models").glob("*.onnx")), *sorted((SHARED / "models/onnx").glob("*.onnx"))]
FAMILIES = sorted(path for path in (SHARED / "vnnlib").iterdir() if path.is_dir())
WIDE = ("N=M=48", "N=M=56")  # 86 and 159 MB once unpacked: the network of N=M=40, wider
LENET = SHARED / "models/mnist_lenet5_standard.onnx"


def of_family(folder):
    files = [f for f in sorted((folder / "onnx").iterdir()) if not any(w in f.name for w in WIDE)]
    return files[:: max(1, len(files) // 4)]


FILES = MODELS + [file for folder in FAMILIES for file in of_family(folder)]


def test_the_files_cover_all_families():
    assert len(MODELS) == 8
    assert len({f.parent.parent.name for f in FILES if "vnnlib" in f.parts}) == 13


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.parent.name}-{p.name}")
def test_real_files_agree_with_onnxruntime(path):
    graph = read_onnx(path)
    assert agree_with_onnxruntime(graph, path, Box(0, 1)) <= 2 * TOLERANCE
    x = torch.rand(7, *graph.input_shape, requires_grad=True)
    y = graph(x)
    assert y.shape == (7, *graph.output_shape)
    assert len(graph.output_shape) == 1
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, 2_000_000, 2_594_520])
def test_a_truncated_file_is_refused(kept, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(LENET.read_bytes()[:kept])
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    assert caught.value.remedy


def test_any_cut_of_a_small_file_is_refused_or_whole(tmp_path):
    # protobuf accepts a cut at a field's border; what is then missing must be noticed
    whole = (SHARED / "models/onnx/Convnet_avgpool.onnx").read_bytes()
    reference, path = read_onnx(SHARED / "models/onnx/Convnet_avgpool.onnx").digest, tmp_path / "cut.onnx"
    kept = {*range(0, 900, 7), *range(len(whole) - 500, len(whole), 3)}
    for n in sorted(kept):
        path.write_bytes(whole[:n])
        try:
            digest = read_onnx(path).digest
        except InputError:
            continue
        assert digest == reference


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("not a network")
    with pytest.raises(RefusedFile, match=r"not an ONNX file|no complete ONNX model"):
        read_onnx(path)
    with pytest.raises(RefusedFile, match="does not exist"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(RefusedFile, match="cannot be read"):
        read_onnx(tmp_path)


def test_a_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(LENET.read_bytes())[:1000])
    with pytest.raises(RefusedFile, match="cannot be read"):
        read_onnx(path)


def test_gzip_reads_the_same_graph(tmp_path):
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(LENET.read_bytes()))
    assert read_onnx(path).digest == read_onnx(LENET).digest


def with_external_data(folder):
    folder.mkdir()
    onnx.save(onnx.load(LENET), folder / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    return folder / "net.onnx"


def test_external_data_beside_the_file_is_read(tmp_path):
    path = with_external_data(tmp_path / "a")
    graph = read_onnx(path)
    assert graph.digest == read_onnx(LENET).digest
    assert agree_with_onnxruntime(graph, path, Box(0, 1)) <= 1e-4


def test_external_data_elsewhere_or_cut_or_missing_is_refused(tmp_path):
    path = with_external_data(tmp_path / "a")
    data = path.with_name("net.bin")
    shutil.copy(data, tmp_path / "net.bin")
    model = onnx.load(path, load_external_data=False)
    for location in ("../net.bin", str(tmp_path / "net.bin")):
        for tensor in model.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = location
        onnx.save(model, path.with_name("moved.onnx"))
        with pytest.raises(RefusedFile, match="outside the folder"):
            read_onnx(path.with_name("moved.onnx"))
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(RefusedFile, match="too short"):
        read_onnx(path)
    data.unlink()
    with pytest.raises(RefusedFile, match="missing"):
        read_onnx(path)
    data.symlink_to(tmp_path / "net.bin")
    with pytest.raises(RefusedFile, match="outside the folder"):
        read_onnx(path)


def built(path, inputs, outputs, nodes, opset=13):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


RELU = helper.make_node("Relu", ["x"], ["y"])


def test_what_is_not_one_batch_of_floats_is_refused(tmp_path):
    out = [info("y", None)]
    path = tmp_path / "m.onnx"
    cases = [
        ([info("x", ["N", 3]), info("z", ["N", 3])], out, "2 inputs"),
        ([info("x", ["N", 3])], [*out, info("x", None)], "2 outputs"),
        ([info("x", ["N", 3], TensorProto.INT64)], out, "INT64"),
        ([info("x", [3])], out, "no batch axis"),
        ([info("x", ["N", 3, "H", "W"])], out, r"\['?\?'?, 3"),
    ]
    for inputs, outputs, words in cases:
        with pytest.raises(UnsupportedModel, match=words):
            read_onnx(built(path, inputs, outputs, [RELU]))


def test_open_sizes_can_be_given(tmp_path):
    path = built(tmp_path / "m.onnx", [info("x", ["N", 3, "H"])], [info("y", None)], [RELU])
    assert read_onnx(path, shape=(3, 8)).input_shape == (3, 8)
    with pytest.raises(UnsupportedModel, match="the file's input"):
        read_onnx(path, shape=(4, 8))


def test_old_operator_sets_are_refused(tmp_path):
    path = built(tmp_path / "m.onnx", [info("x", ["N", 3])], [info("y", None)], [RELU], opset=6)
    with pytest.raises(RefusedFile, match="operator set 6"):
        read_onnx(path)


def test_control_flow_is_refused(tmp_path):
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "b", [], [info("b", None)])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    path = built(tmp_path / "m.onnx", [info("x", ["N", 3])], [info("y", None)], nodes[2:])
    with pytest.raises(UnsupportedModel):
        read_onnx(path)
    nodes[1:2] = [helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))]
    path = built(tmp_path / "m.onnx", [info("x", ["N", 3])], [info("y", None)], nodes[1:])
    with pytest.raises(UnsupportedModel, match="control flow"):
        read_onnx(path)

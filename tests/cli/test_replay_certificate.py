"""`saddlepoint replay CERT`: what it accepts, what it refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from saddlepoint.cli.main import run_app
from saddlepoint.graph.onnx_reader import read_onnx
from saddlepoint.spec.certificate import BoundSets, Certificate, Leaves, Lines, Tree, save
from saddlepoint.spec.property import Atom, Property

SPEC = """
(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (>= X_0 {low}))
(assert (<= X_0 1.0))
(assert (<= Y_0 {bound}))
"""


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """y = 2 x + 3 on [0, 1] never reaches y ≤ 2: a network, properties and a certificate of one leaf."""
    weight = numpy_helper.from_array(torch.tensor([[2.0]]).numpy(), "w")
    bias = numpy_helper.from_array(torch.tensor([3.0]).numpy(), "b")
    sizes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g", sizes[:1], sizes[1:], [weight, bias]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    (tmp_path / "spec.vnnlib").write_text(SPEC.format(low="0.0", bound="2.0"))
    (tmp_path / "wider.vnnlib").write_text(SPEC.format(low="-1.0", bound="2.0"))
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    tree = Tree(ints(-1), ints(-1), ints(-1), zero, torch.tensor([-1], dtype=torch.int8))
    sets = BoundSets(ints(0), ints(-1), ints(-1), torch.zeros(1, dtype=torch.uint8))
    lines = Lines(
        *(ints(k) for k in (0, 0, 0, -1)), torch.ones(1, 1), torch.zeros(0), torch.zeros(2, dtype=torch.int64)
    )
    proof = Certificate(zero, one, Property(((Atom((1.0,), (), -2.0),),)), tree, sets, lines, Leaves(ints(0), ints(0)))
    save(tmp_path / "proof", [proof], read_onnx(tmp_path / "net.onnx").digest)
    return tmp_path


def test_a_certificate_is_accepted_for_its_own_question_only(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = ["--model", str(files / "net.onnx")]
    assert run_app(["replay", str(files / "proof"), *net]) == 0
    assert "accepted, 1 leaves, the smallest margin 1" in capsys.readouterr().out
    assert run_app(["replay", str(files / "proof"), *net, "--data", str(files / "spec.vnnlib")]) == 0
    capsys.readouterr()
    assert run_app(["replay", str(files / "proof"), *net, "--data", str(files / "wider.vnnlib")]) == 4
    assert "another box" in capsys.readouterr().out


def test_what_is_no_certificate_or_lacks_its_network_is_an_error(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["replay", str(files / "proof")]) == 2
    assert "--model" in capsys.readouterr().err
    (files / "junk").write_bytes(b"junk")
    assert run_app(["replay", str(files / "junk"), "--model", str(files / "net.onnx")]) == 2
    assert "no certificate" in capsys.readouterr().err
    assert run_app(["replay", str(files / "nothing"), "--model", str(files / "net.onnx")]) == 2

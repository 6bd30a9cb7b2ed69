"""Every family of the verification set: its network agrees with onnxruntime on corners and points of its own box."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import families
from paths import SHARED
from saddlepoint.core.errors import ImporterDisagreement
from saddlepoint.graph.agreement import TOLERANCE, Runtime, agree_on_box, box_points
from saddlepoint.graph.onnx_reader import read_onnx

if not SHARED.exists():
    pytest.skip("the measuring material (shared/data) is not beside the project", allow_module_level=True)


@pytest.mark.parametrize("family", sorted(families.instances()))
def test_the_network_agrees_on_its_propertys_box(family):
    network, property = families.smallest(family)
    graph, (lower, upper) = read_onnx(network), families.box(property)
    assert agree_on_box(graph, Runtime(network), lower, upper) <= 1e3 * TOLERANCE  # outputs of collins reach 100


def test_points_of_a_box_are_its_corners_middle_and_inside():
    lower, upper = torch.tensor([0.1, -1.0, 2.0]), torch.tensor([0.1, 1.0, 5.0])
    x = box_points(lower, upper, (3,), points=4)
    low, high = lower.double(), upper.double()
    assert torch.equal(x[0], low)
    assert torch.equal(x[1], high)
    assert bool(((x[3:7] == low) | (x[3:7] == high)).all())
    assert bool(((x >= low) & (x <= high)).all())


def test_a_difference_in_a_box_outside_the_unit_cube_is_found():
    network, property = families.smallest("acasxu")
    graph = read_onnx(network)
    lower, upper = families.box(property)
    with pytest.raises(ImporterDisagreement):
        agree_on_box(
            graph, lambda x: Runtime(network)(x) + 0.1 * (x.reshape(len(x), -1)[:, :1] > lower[0]), lower, upper
        )


def test_only_who_reads_a_file_pays_for_the_packages():
    code = (
        "import sys; import saddlepoint.graph.onnx_reader, saddlepoint.graph.agreement, saddlepoint.bound;"
        "heavy = {'onnx', 'onnxruntime', 'sympy', 'torch._dynamo', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy;"
        f"saddlepoint.graph.onnx_reader.read_onnx({str(families.smallest('tllverifybench')[0])!r});"
        "heavy = {'onnxruntime', 'sympy', 'torch._dynamo', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

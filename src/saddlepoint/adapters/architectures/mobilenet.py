"""MobileNet-v1: depthwise separable convolutions with a width multiplier α.

    block = depthwise 3x3 (stride s) - BN - ReLU6 - pointwise 1x1 - BN - ReLU6

Howard et al., "MobileNets" (2017), Table 1. TensorFlow's SAME padding of stride-2 convolutions on even
inputs puts the whole padding on the right and the bottom: it is written out as ZeroPad2d((0, 1, 0, 1)).
Batch norm uses ε = 1e-3, as the published weights do.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from saddlepoint.adapters.architectures.shapes import image_shape
from saddlepoint.core.errors import InputError

_PLAN = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)  # (planes at α = 1, stride) of the 13 blocks


def mobilenet_v1(shape: tuple[int, ...], classes: int, width: float) -> nn.Module:
    """The network with planes scaled by `width`; input height and width must be multiples of 32."""
    channels, height, columns = image_shape("mobilenet-v1", shape, 32)
    if height % 32 or columns % 32:
        raise InputError(
            f"mobilenet-v1 takes images whose sides are multiples of 32, not {height} x {columns}.",
            "Crop or resize the images first, e.g. to 224 x 224.",
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    planes = int(32 * width)
    layers["pad0"] = nn.ZeroPad2d((0, 1, 0, 1))
    layers["conv1"] = nn.Conv2d(channels, planes, 3, stride=2, bias=False)
    layers["conv1_bn"] = nn.BatchNorm2d(planes, eps=1e-3)
    layers["conv1_relu"] = nn.ReLU6()
    for i, (full, stride) in enumerate(_PLAN, 1):
        outputs = int(full * width)
        _add_block(layers, i, planes, outputs, stride)
        planes = outputs
    layers["gap"] = nn.AdaptiveAvgPool2d(1)
    layers["conv_preds"] = nn.Conv2d(planes, classes, 1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _add_block(layers: OrderedDict[str, nn.Module], index: int, inputs: int, outputs: int, stride: int) -> None:
    deep, point = f"conv_dw_{index}", f"conv_pw_{index}"
    if stride == 2:
        layers[f"{deep}_pad"] = nn.ZeroPad2d((0, 1, 0, 1))
    padding = 0 if stride == 2 else 1
    layers[deep] = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=padding, groups=inputs, bias=False)
    layers[f"{deep}_bn"] = nn.BatchNorm2d(inputs, eps=1e-3)
    layers[f"{deep}_relu"] = nn.ReLU6()
    layers[point] = nn.Conv2d(inputs, outputs, 1, bias=False)
    layers[f"{point}_bn"] = nn.BatchNorm2d(outputs, eps=1e-3)
    layers[f"{point}_relu"] = nn.ReLU6()

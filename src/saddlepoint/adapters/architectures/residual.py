"""Residual networks: ResNet-20/32/56 for CIFAR and the verification nets ResNet-2B, ResNet-4B.

    block(x) = relu(F(x) + s(x)),    F = two 3x3 convolutions, s = shortcut

He et al., "Deep residual learning" (CVPR 2016), §4.2: 6n+2 layers, planes 16/32/64, parameter-free
shortcuts (option A: every second pixel, new channels zero). Wang et al., beta-CROWN (NeurIPS 2021): the
nets without batch norm, 1x1 convolution as shortcut, two linear layers at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from saddlepoint.adapters.architectures.shapes import convolved, image_shape


class PaddedSubsample(nn.Module):
    """Option A shortcut: x[:, :, ::2, ::2] with `extra` zero channels, half of them on each side."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c + 2·extra, ⌈h/s⌉, ⌈w/s⌉)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.extra, self.extra))


class NormalisedBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the option A shortcut, then ReLU."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        same = stride == 1 and inputs == planes
        self.shortcut = nn.Identity() if same else PaddedSubsample(stride, (planes - inputs) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + s(x))."""
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """6n+2 layers: a 3x3 convolution, three stages of n blocks, global average pooling, linear."""

    def __init__(self, channels: int, classes: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = NormalisedBlock(inputs, planes, stride)
    return nn.Sequential(first, *(NormalisedBlock(planes, planes, 1) for _ in range(blocks - 1)))


class PlainBlock(nn.Module):
    """conv-ReLU-conv with biases and no batch norm; 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + s(x))."""
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2B(nn.Module):
    """conv 3x3/2 (8), two blocks (16 planes, first /2), flatten, linear 100, linear; 6,244 ReLUs on CIFAR."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        rows, columns = (_halvings(n, 2) for n in (height, width))
        self.conv1 = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(PlainBlock(8, 16, 2), PlainBlock(16, 16, 1))
        self.linear1 = nn.Linear(16 * rows * columns, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = self.layer1(torch.relu(self.conv1(x)))
        return self.linear2(torch.relu(self.linear1(torch.flatten(x, 1))))


class ResNet4B(nn.Module):
    """conv 3x3/2 (16), two stages of two blocks (32 planes, first /2), linear 100, linear; 14,436 ReLUs."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        rows, columns = (_halvings(n, 3) for n in (height, width))
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(PlainBlock(16, 32, 2), PlainBlock(32, 32, 1))
        self.layer2 = nn.Sequential(PlainBlock(32, 32, 2), PlainBlock(32, 32, 1))
        self.linear1 = nn.Linear(32 * rows * columns, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes)."""
        x = self.layer2(self.layer1(torch.relu(self.conv1(x))))
        return self.linear2(torch.relu(self.linear1(torch.flatten(x, 1))))


def _halvings(size: int, times: int) -> int:
    """Length after `times` 3x3 convolutions with stride 2 and padding 1."""
    for _ in range(times):
        size = convolved(size, 3, 2, 1)
    return size


def resnet_cifar(shape: tuple[int, ...], classes: int, blocks: int) -> nn.Module:
    """ResNet-(6·blocks + 2) for small images."""
    channels, _, _ = image_shape("resnet", shape, 4)
    return ResNetCifar(channels, classes, blocks)


def resnet_2b(shape: tuple[int, ...], classes: int) -> nn.Module:
    """ResNet-2B."""
    return ResNet2B(image_shape("resnet2b", shape, 4), classes)


def resnet_4b(shape: tuple[int, ...], classes: int) -> nn.Module:
    """ResNet-4B."""
    return ResNet4B(image_shape("resnet4b", shape, 8), classes)

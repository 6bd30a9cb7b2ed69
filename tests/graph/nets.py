"""Networks for the graph's tests: small, and one of each kind of joint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """CIFAR ResNet block with the option-A shortcut: every second pixel, zero channels on both sides."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.extra = (c_out - c_in) // 2
        self.stride = stride

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra), "constant", 0)
        y += x
        return F.relu(y)


class ResNet20(nn.Module):
    def __init__(self, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(Block(*w) for w in widths))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1((x - self.mean) / self.std))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding="valid"),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2, 1, padding=1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(54, 10),
    )


def mobile():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(8, 8, 3, 2, groups=8),
        nn.Hardtanh(-2.0, 3.0),
        nn.Conv2d(8, 6, 1),
        nn.Conv2d(6, 6, 3, padding="same"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
        nn.LogSoftmax(-1),
    )


def tabular():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 4), nn.Softmax(1))


class Attention(nn.Module):
    """A class token, projections cut and joined again, a product of two variables."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.qkv, self.head, self.norm = nn.Linear(8, 24), nn.Linear(8, 3), nn.LayerNorm(8)
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x[:, self.order]], dim=1)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        a = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1)
        y = torch.stack([a @ v, 2 - x], dim=1).sum(1) + torch.arange(8.0)
        y = self.norm(y[:, 0] * 0.5 - y.mean(dim=1)) / (1 + x[:, 0].square())
        return self.head(F.gelu(y)).clamp(min=-1)


def settled(net, seed=0):
    """Random batch-norm statistics, evaluation mode."""
    torch.manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.5, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
    return net.eval()


NETS = {
    "mlp": (mlp, (3, 2, 2)),
    "lenet": (lenet, (1, 12, 12)),
    "mobile": (mobile, (3, 16, 16)),
    "tabular": (tabular, (6,)),
    "attention": (Attention, (3, 8)),
    "resnet20": (ResNet20, (3, 32, 32)),
}

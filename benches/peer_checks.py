#!/usr/bin/env python3
"""What PyTorch computes for the peer cases: `check` and `check2` of `cargo bench --bench peer_cases`.

    pip install torch numpy
    python benches/peer_checks.py > torch.jsonl
    python benches/peer_checks.py hubel.jsonl      # compares the checks in a file of the bench's lines, to 1e-4

Arithmetic is float64. Training cases: `check` is the loss of the fourth step, `check2` that of the second, which every
gradient of the first step enters. Rounding grows from step to step where it decides the sign in front of a ReLU, for
the best of kernels too: a `check` that is further off than 1e-4 must lie within what results of exact sums, rounded
to float32 operation by operation, spread over eight ways of rounding. Backward cases: `check` is the sum of the gradients' magnitudes for an output gradient of ones,
`check2` for fill(seed 10); forward cases: the sum of the outputs' magnitudes, and the sum of y times fill(seed 9).
"""
import json
import math
import sys

import numpy as np
import torch
from torch.nn import functional as F

CONVOLUTIONS = {
    "conv3x3_n8_c64_56": (8, 64, 56, 64, 3, 1, 1, 1),
    "conv7x7s2_n8_c3_224": (8, 3, 224, 64, 7, 2, 3, 1),
    "conv3x3_n8_c256_14": (8, 256, 14, 256, 3, 1, 1, 1),
    "conv1x1_n8_c256_k64_56": (8, 256, 56, 64, 1, 1, 0, 1),
    "dwconv3x3_n8_c32_112": (8, 32, 112, 32, 3, 1, 1, 32),
}


def fill(seed, shape, scale=1.0):
    h = np.arange(math.prod(shape), dtype=np.uint32) + np.uint32((seed * 0x9E3779B9) & 0xFFFFFFFF)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    values = (h >> np.uint32(8)).astype(np.float32) / np.float32(8388608.0) - np.float32(1.0)
    return torch.from_numpy((values * np.float32(scale)).reshape(shape).astype(np.float64))


def he(fan_in):
    return math.sqrt(6.0 / fan_in)


def forward(y):
    return {"check": y.abs().sum().item(), "check2": (y * fill(9, y.shape)).sum().item()}


def backward(y, leaves):
    def total(dy):
        return sum(g.abs().sum().item() for g in torch.autograd.grad(y, leaves, dy, retain_graph=True))

    return {"check": total(torch.ones_like(y)), "check2": total(fill(10, y.shape))}


class Rounded(torch.autograd.Function):
    """Rounds a result and its gradient to float32, each moved before by up to a quarter of a unit in the last place."""

    @staticmethod
    def forward(ctx, x, generator):
        ctx.generator = generator
        return Rounded.single(x, generator)

    @staticmethod
    def backward(ctx, gradient):
        return Rounded.single(gradient, ctx.generator), None

    @staticmethod
    def single(x, generator):
        moved = (torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5) * 2**-24
        return (x * (1 + moved)).float().double()


class Net:
    """Hands out parameters in the order of construction."""

    def __init__(self, training, rounding=None):
        self.seed, self.training, self.parameters, self.rounding = 100, training, {}, rounding

    def rounded(self, x):
        return x if self.rounding is None else Rounded.apply(x, self.rounding)

    def parameter(self, shape, fan_in=None):
        self.seed += 1
        if self.seed not in self.parameters:
            value = fill(self.seed, shape, he(fan_in))
            self.parameters[self.seed] = value.requires_grad_(self.training)
        return self.parameters[self.seed]

    def constant(self, key, channels, value):
        key = (self.seed, key)
        if key not in self.parameters:
            self.parameters[key] = torch.full((channels,), float(value), dtype=torch.float64).requires_grad_(self.training)
        return self.parameters[key]

    def conv(self, x, k, filters, stride, pad):
        c = x.shape[1]
        return self.rounded(F.conv2d(x, self.parameter((filters, c, k, k), c * k * k), stride=stride, padding=pad))

    def norm(self, x):
        c = x.shape[1]
        gamma, beta = self.constant("gamma", c, 1), self.constant("beta", c, 0)
        if self.training:
            return self.rounded(F.batch_norm(x, None, None, gamma, beta, True, eps=1e-5))
        zeros, ones = torch.zeros(c, dtype=torch.float64), torch.ones(c, dtype=torch.float64)
        return F.batch_norm(x, zeros, ones, gamma, beta, False, eps=1e-5)

    def dense(self, x, units):
        w = self.parameter((units, x.shape[1]), x.shape[1])
        return self.rounded(x @ w.T + self.constant("bias", units, 0))

    def lenet5(self, x):
        for filters in (6, 16):
            y = self.conv(x, 5, filters, 1, 0)
            x = F.max_pool2d(F.relu(y + self.constant("bias", filters, 0)[:, None, None]), 2)
        x = x.flatten(1)
        for units in (120, 84):
            x = F.relu(self.dense(x, units))
        return self.dense(x, 10)

    def block(self, x, c, stride, bottleneck):
        out = 4 * c if bottleneck else c
        steps = [(1, c, 1, 0), (3, c, stride, 1), (1, out, 1, 0)] if bottleneck else [(3, c, stride, 1), (3, c, 1, 1)]
        y = x
        for i, step in enumerate(steps):
            y = self.norm(self.conv(F.relu(y) if i else y, *step))
        skip = x
        if stride > 1 or x.shape[1] != out:
            skip = self.norm(self.conv(x, 1, out, stride, 0))
        return F.relu(y + skip)

    def resnet(self, x, blocks, bottleneck):
        x = self.conv(x, 7, 64, 2, 3) if bottleneck else self.conv(x, 3, 64, 1, 1)
        x = F.relu(self.norm(x))
        if bottleneck:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage, n in enumerate(blocks):
            for i in range(n):
                x = self.block(x, 64 << stage, 2 if i == 0 and stage > 0 else 1, bottleneck)
        return self.dense(x.mean((2, 3)), 1000 if bottleneck else 10)


def network(name, rounding=None):
    model, batch, what = name.split("_")
    n, training = int(batch[1:]), what == "train"
    net = Net(training, rounding)
    channels, side = {"lenet5": (1, 32), "resnet18c": (3, 32), "resnet50": (3, 224)}[model]
    x = fill(1, (n, channels, side, side))

    def run():
        net.seed = 100
        if model == "lenet5":
            return net.lenet5(x)
        return net.resnet(x, (2, 2, 2, 2), False) if model == "resnet18c" else net.resnet(x, (3, 4, 6, 3), True)

    if not training:
        with torch.no_grad():
            return forward(run())
    labels = torch.arange(n) % 10
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(run(), labels)
        losses.append(loss.item())
        for p, g in zip(net.parameters.values(), torch.autograd.grad(loss, list(net.parameters.values()))):
            p.data -= 0.01 * g
            if rounding is not None:
                p.data = p.data.float().double()
    return {"check": losses[3], "check2": losses[1]}


def spread(name, wanted):
    """The largest relative distance of the check from the exact one in float32 with exact sums."""
    seeds = (torch.Generator().manual_seed(seed) for seed in range(8))
    return max(abs(network(name, seed)["check"] - wanted) / abs(wanted) for seed in seeds)


def case(name):
    stem = name.removesuffix("_fwdbwd").removesuffix("_fwd")
    if stem in CONVOLUTIONS:
        n, c, side, k, r, s, p, g = CONVOLUTIONS[stem]
        x = fill(1, (n, c, side, side)).requires_grad_()
        w = fill(2, (k, c // g, r, r), he(c // g * r * r)).requires_grad_()
        y = F.conv2d(x, w, stride=s, padding=p, groups=g)
        return backward(y, [x, w]) if name.endswith("bwd") else forward(y.detach())
    if stem.startswith("matmul"):
        m = int(stem.split("_")[1])
        return forward(fill(1, (m, m)) @ fill(2, (m, m)))
    if stem.startswith("softmax"):
        return forward(F.softmax(fill(1, (1024, 1000), 4.0), 1))
    if stem.startswith("maxpool"):
        x = fill(1, (8, 64, 112, 112)).requires_grad_()
        y = F.max_pool2d(x, 2)
        return backward(y, [x]) if name.endswith("bwd") else forward(y.detach())
    if stem.startswith("bn_train"):
        x = fill(1, (8, 64, 56, 56)).requires_grad_()
        y = F.batch_norm(x, None, None, training=True, eps=1e-5) * fill(2, (8, 64, 56, 56))
        return backward(y, [x])
    return network(name)


NAMES = (
    [f"{c}_{d}" for c in CONVOLUTIONS for d in ("fwd", "fwdbwd")]
    + ["matmul_256", "matmul_512", "matmul_1024", "maxpool2_n8_c64_112_fwd", "maxpool2_n8_c64_112_fwdbwd"]
    + ["bn_train_n8_c64_56_fwdbwd", "softmax_1024x1000", "lenet5_b64_infer", "lenet5_b64_train"]
    + ["resnet18c_b32_infer", "resnet18c_b32_train", "resnet50_b1_infer"]
)


def main():
    if len(sys.argv) == 1:
        for name in NAMES:
            print(json.dumps({"bench": name, "peer": "torch", **case(name)}), flush=True)
        return
    with open(sys.argv[1], encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["peer"] == "hubel"]
    wrong = 0
    for row in rows:
        for key, wanted in case(row["bench"]).items():
            off = abs(row[key] - wanted) / abs(wanted)
            most = 1e-4
            if off > most and key == "check" and row["bench"].endswith("train"):
                most = spread(row["bench"], wanted)
            wrong += not off <= most
            verdict = "" if off <= 1e-4 else f" rounding alone gives {most:.1e}" if off <= most else " WRONG"
            print(f"{row['bench']:30} {key:7} {row[key]:18.6f} {wanted:18.6f} {off:.1e}{verdict}", flush=True)
    sys.exit(f"{wrong} checks differ" if wrong else 0)


if __name__ == "__main__":
    main()

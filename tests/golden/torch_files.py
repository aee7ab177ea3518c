#!/usr/bin/env python3
"""A small network's state in both file formats of PyTorch, with its output: tests/golden/files/torch*.

    pip install torch==2.9.1 safetensors numpy
    python tests/golden/torch_files.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = pathlib.Path(__file__).with_name("files")
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 4, 3, padding=1),
    nn.BatchNorm2d(4),
    nn.ReLU(),
    nn.Conv2d(4, 8, 3, groups=4),
    nn.Flatten(),
    nn.Linear(8 * 6 * 6, 5),
    nn.Softmax(1),
)
with torch.no_grad():
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].weight.uniform_(0.5, 2)
net.eval()
FOLDER.mkdir(exist_ok=True)
torch.save(net.state_dict(), FOLDER / "torch.pth")
torch.save({"epoch": 3, "state_dict": net.state_dict()}, FOLDER / "torch_legacy.pth", _use_new_zipfile_serialization=False)
x = torch.randn(2, 3, 8, 8)
save_file({"input": x.permute(0, 2, 3, 1).contiguous(), "output": net(x).detach()}, FOLDER / "torch.safetensors")

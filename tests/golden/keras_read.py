#!/usr/bin/env python3
"""Reads by Keras 3 what Hubel wrote, and compares outputs: tests/keras-files runs it.

    python tests/golden/keras_read.py MODELS WRITTEN     # with keras==3.15.1 and jax

MODELS/FRAMEWORK/NAME.safetensors has inputs and outputs, WRITTEN/FRAMEWORK has NAME.keras, NAME.h5 and NAME.weights.h5.
"""
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import numpy as np
from safetensors.numpy import load_file

MODELS, WRITTEN = map(pathlib.Path, sys.argv[1:])


def flat(tensors):
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


right, without, wrong = 0, 0, []
for path in sorted(WRITTEN.glob("*/*")):
    name = path.name.split(".")[0]
    io = load_file(MODELS / path.parent.name / f"{name}.safetensors")
    xs, ys = ([io[k] for k in sorted((k for k in io if k[0] == kind), key=lambda k: int(k[1:]))] for kind in ("x", "z" if "z0" in io else "y"))
    try:
        if path.name.endswith(".weights.h5"):
            model = keras.models.load_model(path.with_name(f"{name}.keras"), compile=False)
            for w in model.weights:
                w.assign(np.zeros(w.shape))
            model.load_weights(path)
        else:
            model = keras.models.load_model(path, compile=False)
        got = flat(model(xs[0] if len(xs) == 1 else xs, training=False))
        off = max(np.max(np.abs(np.asarray(a, "float32") - b)) / max(1e-3, np.max(np.abs(b))) for a, b in zip(got, ys, strict=True))
        if not off <= 1e-4:
            raise ValueError(f"off by {off:.1e} of the largest value")
        right += 1
    except Exception as e:
        if "requires TensorFlow" in str(e):
            without += 1
            continue
        wrong.append(f"{path.parent.name}/{path.name}: {str(e)[:300]!r}")
print(f"{right} files of Hubel are right in Keras {keras.__version__}, {len(wrong)} are not, {without} have layers that need TensorFlow")
print("\n".join(wrong))
sys.exit(bool(wrong))

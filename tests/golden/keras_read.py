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

# What Keras 3.15 does not read or compute of its own either: a part of the model's name, and of the message.
KERAS_REFUSES = [
    # A layer of Keras 2 alone.
    ("random_height", "RandomHeight"),
    ("random_width", "RandomWidth"),
    # The factors in its own configuration are outside the range that it accepts.
    ("randomshear", "could not be deserialized properly"),
    # Values of another size than keys, on JAX.
    ("multi_head_attention_values", "cannot reshape array"),
    # Looked up by TensorFlow, which is not installed beside JAX.
    ("integer_lookup", "requires TensorFlow"),
]


def flat(tensors):
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


right, refused, wrong = 0, 0, []
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
        if any(part in name and text in str(e) for part, text in KERAS_REFUSES):
            refused += 1
        else:
            wrong.append(f"{path.parent.name}/{path.name}: {str(e)[:300]!r}")
print(f"{right} files of Hubel are right in Keras {keras.__version__}, {refused} are of what it refuses of its own too, {len(wrong)} are not right")
print("\n".join(wrong))
sys.exit(bool(wrong))

#!/usr/bin/env python3
"""Outputs of the saved models in tests/golden/files/keras, by the framework that wrote each.

    python tests/golden/saved.py            # with keras==3.15.1: what Keras 3 wrote
    python tests/golden/saved.py            # with tensorflow-cpu==2.15.1: what tf.keras 2 and TensorFlow.js wrote

Inputs and outputs go to keras.safetensors in the folder above, as NAME/x0, … and NAME/y0, …. A model of bfloat16 or
int8 is computed in f32 from the same weights, as Hubel does. What TensorFlow.js computed is in a folder's io.json.
"""
import json
import os
import pathlib
import sys
import zipfile

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from safetensors.numpy import load_file, save_file

try:
    import tensorflow as tf

    keras, VERSION = tf.keras, tf.__version__
except ImportError:
    import keras

    VERSION = keras.__version__

FOLDER = pathlib.Path(__file__).with_name("files") / "keras"
OLD = VERSION.startswith("2")


def written_by_keras_2(path):
    if path.is_dir() or path.suffix == ".h5":
        return path.name.startswith(("keras2", "silent_keras2", "tfjs"))
    metadata = json.loads(zipfile.ZipFile(path).read("metadata.json"))
    return metadata["keras_version"].startswith("2")


def from_tfjs(folder):
    """The model of a model.json: its topology by Keras 2, its weights by name."""
    text = json.loads((folder / "model.json").read_text())
    topology = text["modelTopology"].get("model_config") or text["modelTopology"]
    for layer in topology["config"]["layers"]:
        for key, value in list(layer["config"].items()):
            if value is None and key in ("unit_forget_bias", "implementation"):
                layer["config"][key] = {"unit_forget_bias": True, "implementation": 1}[key]
            if isinstance(value, dict) and value.get("config", {}).get("distribution") == "normal":
                value["config"]["distribution"] = "truncated_normal"
    model = keras.models.model_from_json(json.dumps(topology))
    values = {}
    for group in text["weightsManifest"]:
        bytes_ = b"".join((folder / path).read_bytes() for path in group["paths"])
        at = 0
        for weight in group["weights"]:
            n = int(np.prod(weight["shape"]))
            values[weight["name"]] = np.frombuffer(bytes_, "float32", n, at).reshape(weight["shape"])
            at += 4 * n
    plain = lambda name: name.removesuffix(":0").replace("lstm_cell/", "")
    model.set_weights([values[plain(w.name)] for w in model.weights])
    return model


def in_float32(model):
    """The same model with weights and arithmetic of f32."""
    policy = str(model.get_config())
    if "'bfloat16'" in policy:
        config = json.loads(json.dumps(model.get_config()).replace('"bfloat16"', '"float32"'))
        plain = model.__class__.from_config(config)
        plain.build(model.input_shape)
        plain.set_weights([np.asarray(w.numpy(), "float32") for w in model.weights])
        return plain
    if "'int8'" in policy:
        layers = [keras.Input(model.input_shape[1:])]
        values = []
        for layer in model.layers:
            layers.append(keras.layers.Dense(layer.units, activation=layer.activation, use_bias=layer.use_bias))
            values.append(np.asarray(layer._kernel, "float32") / np.asarray(layer.kernel_scale))
            values += [np.asarray(layer.bias)] if layer.use_bias else []
        plain = keras.Sequential(layers)
        plain.set_weights(values)
        return plain
    return model


def sample(model, shape, dtype, rng):
    shape = (2, *(8 if d is None else d for d in shape[1:]))
    first = next((l for l in model.layers if "Embedding" in type(l).__name__), None)
    if first is not None:
        return rng.integers(0, first.input_dim, shape).astype("int32" if "int" in str(dtype) else "float32")
    return (2 * rng.normal(0, 1, shape)).astype("float32")


def flat(tensors):
    return list(tensors.values()) if isinstance(tensors, dict) else list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


RECORD = FOLDER.with_suffix(".safetensors")
record = load_file(RECORD) if RECORD.exists() else {}
for path in sorted(FOLDER.iterdir()):
    name = path.name.split(".")[0]
    if written_by_keras_2(path) != OLD:
        continue
    model = from_tfjs(path) if path.is_dir() else keras.models.load_model(path, compile=False)
    model = model if OLD else in_float32(model)
    rng = np.random.default_rng(0)
    xs = [sample(model, x.shape, x.dtype, rng) for x in model.inputs]
    if path.name.startswith("embedding_mask"):
        xs[0][0, :7] = 0
        xs[0][1, 11:] = 0
    if path.is_dir() and (path / "io.json").exists():
        io = json.loads((path / "io.json").read_text())
        xs = [np.asarray(io["x"], "float32").reshape(io["xs"])]
        found = model.predict(xs[0], verbose=0)
        assert np.allclose(found, np.reshape(io["y"], io["ys"]), atol=1e-6), name
    inputs = xs[0] if len(xs) == 1 else xs
    if "dict" in name:
        inputs = dict(zip([x.name for x in model.inputs], xs))
    ys = flat(model.predict(inputs, verbose=0))
    for kind, tensors in (("x", xs), ("y", ys)):
        record |= {f"{name}/{kind}{i}": np.ascontiguousarray(t) for i, t in enumerate(tensors)}
    print(name, [x.shape for x in xs], [y.shape for y in ys], file=sys.stderr)
save_file(record, RECORD)

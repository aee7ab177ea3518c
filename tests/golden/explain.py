#!/usr/bin/env python3
"""What Keras makes of Grad-CAM, as in its guide, and of saliency: explain.json.

    KERAS_BACKEND=jax python tests/golden/explain.py, with keras 3.15.1 and jax installed

`model`, `weights`: a small network with random weights; `images`; `classes`: those asked for; `heat` of `conv2`,
enlarged; `saliency`; `likeliest`: what the network says.
"""
import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
import jax
import keras
import numpy as np
from keras import layers as L

keras.utils.set_random_seed(3)
rng = np.random.default_rng(3)
x = keras.Input((12, 11, 2), name="x")
y = L.MaxPooling2D(2)(L.Conv2D(4, 3, activation="relu", name="conv1")(x))
features = L.Conv2D(5, 3, padding="same", activation="relu", name="conv2")(y)
logits = L.Dense(4, name="class")(L.Flatten()(L.MaxPooling2D(2)(features)))
model = keras.Model(x, L.Softmax(name="softmax")(logits))
front, back, whole = keras.Model(x, features), keras.Model(features, logits), keras.Model(x, logits)
for weight in model.weights:
    weight.assign(rng.normal(size=weight.shape) * 0.4)

images, classes = rng.normal(size=(3, 12, 11, 2)).astype("float32"), [2, 0, 3]
score = lambda net: lambda t: sum(net(t)[i, c] for i, c in enumerate(classes))
maps = np.asarray(front(images))
alpha = np.asarray(jax.grad(score(back))(maps)).mean((1, 2))
heat = np.maximum((maps * alpha[:, None, None]).sum(-1, keepdims=True), 0)
heat = keras.ops.image.resize(heat, (12, 11), interpolation="bilinear")
saliency = np.abs(np.asarray(jax.grad(score(whole))(images))).max(-1)

flat = lambda t: [float(f"{v:.7g}") for v in np.asarray(t, "float32").ravel()]
out = {
    "model": json.loads(model.to_json()),
    "weights": [[w.path, list(w.shape), flat(w)] for w in model.weights],
    "images": flat(images),
    "classes": classes,
    "heat": flat(heat),
    "saliency": flat(saliency),
    "likeliest": np.asarray(model(images)).argmax(-1).tolist(),
}
(pathlib.Path(__file__).parent / "explain.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")

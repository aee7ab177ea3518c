#!/usr/bin/env python3
"""Small models in every file format of Keras, with their outputs: tests/golden/files/.

    pip install keras==3.15.1 jax==0.10.2 safetensors numpy
    KERAS_BACKEND=jax python tests/golden/files.py
"""
import pathlib

import keras
import numpy as np
from keras import layers as L
from safetensors.numpy import save_file

FOLDER = pathlib.Path(__file__).with_name("files")
rng = np.random.default_rng(0)


def convolutional():
    x = y = keras.Input((8, 8, 3), name="picture")
    y = L.Conv2D(4, 3, padding="same", activation="relu")(y)
    y = L.BatchNormalization()(y)
    shortcut = L.Conv2D(6, 1)(y)
    y = L.SeparableConv2D(6, 3, padding="same")(y)
    y = L.BatchNormalization(name="named")(y)
    y = L.Add()([y, shortcut])
    y = L.DepthwiseConv2D(3, depth_multiplier=2)(y)
    inner = keras.Sequential([keras.Input((6, 6, 12)), L.Conv2D(3, 3), L.BatchNormalization()], name="inner")
    y = L.Flatten()(inner(y))
    return keras.Model(x, L.Dense(5, activation="softmax")(y), name="convolutional")


def recurrent():
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            L.Bidirectional(L.LSTM(4, return_sequences=True)),
            L.GRU(3),
            L.Dense(2),
        ],
        name="recurrent",
    )


def branching():
    """The first convolution made is the last in Keras's order: files number layers by depth."""
    x = keras.Input((6, 6, 3))
    short = L.Conv2D(4, 1)(x)
    y = L.Conv2D(4, 3, padding="same")(x)
    y = L.Conv2D(4, 3, padding="same")(L.BatchNormalization()(y))
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(L.Add()([short, y]))), name="branching")


FOLDER.mkdir(exist_ok=True)
for build in (convolutional, recurrent, branching):
    keras.backend.clear_session()
    model = build()
    for w in model.weights:
        value = rng.normal(0, 0.5, w.shape)
        w.assign(np.abs(value) + 0.5 if "variance" in w.path or "gamma" in w.path else value)
    name = build.__name__
    model.save(FOLDER / f"{name}.keras")
    model.save(FOLDER / f"{name}.h5")
    model.save_weights(FOLDER / f"{name}.weights.h5")
    x = rng.normal(0, 1, (2, *model.input_shape[1:])).astype("float32")
    y = model.predict(x, verbose=0)
    save_file({"input": x, "output": np.asarray(y)}, FOLDER / f"{name}.safetensors")
    np.savez_compressed(FOLDER / f"{name}.npz", **{w.path.removeprefix(f"{name}/"): np.asarray(w) for w in model.weights})
    print(name, model.count_params(), [w.path for w in model.weights])

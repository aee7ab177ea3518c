#!/usr/bin/env python3
"""Trainings that Keras begins and Hubel ends, and the reverse: tests/keras-files runs it.

    python tests/golden/keras_resume.py begin FOLDER     # with keras==3.15.1 and jax, or with tensorflow-cpu==2.15.1
    python tests/golden/keras_resume.py end FOLDER       # with Keras 3

`begin` trains each model for some steps, writes NAME.begun.keras and NAME.begun.h5, goes on, and writes samples and the losses
of the further steps to NAME.safetensors. Hubel takes those steps from each file, writes NAME.mine.keras and NAME.mine.h5, goes
on, and writes its losses to NAME.mine.keras.safetensors and NAME.mine.h5.safetensors; `end` takes these steps and compares.
"""
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    import tensorflow

    keras, ENDS, PREFIX = tensorflow.keras, ["h5"], "keras2_"
except ImportError:
    import keras

    ENDS, PREFIX = ["keras", "h5"], ""
import numpy as np
from safetensors.numpy import load_file, save_file

DO, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
L, O = keras.layers, keras.optimizers
STEPS = 5


def images():
    x = keras.Input((8, 8, 3))
    y = L.Conv2D(6, 3, padding="same", use_bias=False)(x)
    y = L.Activation("relu")(L.BatchNormalization()(y))
    z = L.DepthwiseConv2D(3, padding="same", activation="relu")(y)
    y = L.GlobalAveragePooling2D()(L.Add()([y, z]))
    return keras.Model(x, L.Dense(4, activation="softmax", kernel_regularizer="l2")(y))


def nested():
    base = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu"), L.Conv2D(4, 3)], name="base")
    frozen = keras.Sequential([keras.Input((4, 4, 4)), L.Conv2D(4, 3, name="kept")], name="frozen")
    frozen.trainable = False
    x = keras.Input((8, 8, 3))
    return keras.Model(x, L.Dense(4, activation="softmax")(L.Flatten()(frozen(base(x)))))


def sequence():
    return keras.Sequential([keras.Input((8, 24)), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.GRU(5), L.LayerNormalization(),
                             L.Dense(4, activation="softmax")])


def attention():
    x = keras.Input((8, 24))
    y = L.LayerNormalization()(L.Dense(6)(x))
    y = L.Add()([y, L.MultiHeadAttention(2, 3)(y, y)])
    return keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalAveragePooling1D()(y)))


sparse = keras.losses.SparseCategoricalCrossentropy
CASES = {
    "sgd": (images, lambda: O.SGD(0.1), "sparse_categorical_crossentropy"),
    "momentum": (nested, lambda: O.SGD(0.05, momentum=0.9, nesterov=True), sparse()),
    "adam": (images, lambda: O.Adam(0.01), "sparse_categorical_crossentropy"),
    "adam_nested": (nested, lambda: O.Adam(0.01, clipnorm=1.0), sparse()),
    "adam_sequence": (sequence, lambda: O.Adam(0.02), "sparse_categorical_crossentropy"),
    "adam_attention": (attention, lambda: O.Adam(0.02), "sparse_categorical_crossentropy"),
    "amsgrad": (images, lambda: O.Adam(0.01, amsgrad=True, beta_1=0.8), "sparse_categorical_crossentropy"),
    "adamw": (sequence, lambda: O.AdamW(O.schedules.CosineDecay(0.0, 20, warmup_target=0.02, warmup_steps=3)), "sparse_categorical_crossentropy"),
    "rmsprop": (images, lambda: O.RMSprop(0.005), "sparse_categorical_crossentropy"),
    "rmsprop_centered": (attention, lambda: O.RMSprop(0.005, momentum=0.5, centered=True), "sparse_categorical_crossentropy"),
    "adagrad": (nested, lambda: O.Adagrad(O.schedules.ExponentialDecay(0.1, 3, 0.7)), "sparse_categorical_crossentropy"),
    "regression": (images, lambda: O.SGD(0.1, momentum=0.5), keras.losses.Huber()),
}


def losses_of(model, x, y):
    """Losses of single steps: Keras returns the mean since the last reset."""
    losses = []
    for _ in range(STEPS):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x, y, return_dict=True)["loss"]))
    return np.array(losses, "float32")


def trainer_of(path):
    """Of an .h5 file, its own too, Keras 3.15 builds the optimiser without variables, which training then refuses."""
    model = keras.models.load_model(path)
    if path.suffix != ".h5":
        return model
    import h5py

    optimizer = model.optimizer.__class__.from_config(model.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    group = h5py.File(path)["optimizer_weights"]
    names = group.attrs["weight_names"]
    for variable, name in zip(optimizer.variables, names, strict=True):
        variable.assign(group[name][()])
    model.compile(optimizer, model.loss)
    return model


FOLDER.mkdir(parents=True, exist_ok=True)
wrong = []
for name, (build, optimizer, loss) in CASES.items():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    if DO == "begin":
        model = build()
        x = rng.normal(0, 1, (8, *model.input_shape[1:])).astype("float32")
        classes = name != "regression"
        y = (np.arange(8) % 4).astype("uint8") if classes else rng.normal(0, 1, (8, 4)).astype("float32")
        model.compile(optimizer(), loss, metrics=["accuracy"] if classes else ["mae"])
        losses_of(model, x, y)
        for end in ENDS:
            model.save(FOLDER / f"{PREFIX}{name}.begun.{end}")
        save_file({"x": x, "y": y, "losses": losses_of(model, x, y)}, FOLDER / f"{PREFIX}{name}.safetensors")
        continue
    for end in ENDS:
        try:
            io, mine = load_file(FOLDER / f"{name}.safetensors"), load_file(FOLDER / f"{name}.mine.{end}.safetensors")
            model = trainer_of(FOLDER / f"{name}.mine.{end}")
            if int(model.optimizer.iterations) != 2 * STEPS:
                raise ValueError(f"{int(model.optimizer.iterations)} steps were taken, not {2 * STEPS}")
            off = np.max(np.abs(losses_of(model, io["x"], io["y"]) - mine["losses"]))
            if not off <= 1e-3:
                raise ValueError(f"losses are off by {off:.1e}")
        except Exception as e:
            wrong.append(f"{name}.{end}: {str(e)[:300]!r}")
if DO == "end":
    print(f"{len(CASES) * len(ENDS) - len(wrong)} trainings of Hubel go on in Keras {keras.__version__}, {len(wrong)} do not")
    print("\n".join(wrong))
sys.exit(bool(wrong))

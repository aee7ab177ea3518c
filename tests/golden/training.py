#!/usr/bin/env python3
"""What Keras makes of losses, metrics, schedules and callbacks: training.json and training.safetensors.

    KERAS_BACKEND=jax python tests/golden/training.py, with keras 3.15.1, jax and safetensors installed

`losses`: y_pred, y_true under the case's name, per-sample means, and the gradient of their mean. `metrics`: two batches
and the result after each. `schedules`: rates of 40 steps. `early`, `plateau`: what the callbacks do with a series. `runs`: three epochs of a small network, its weights before and
after, the losses, and the moving statistics after each epoch.
"""
import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
import jax
import keras
import numpy as np
from keras import callbacks as C, losses as L, metrics as M
from keras.optimizers import schedules as S
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(0)
out, tensors = {"losses": [], "metrics": [], "schedules": [], "early": [], "plateau": [], "runs": []}, {}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def put(name, x):
    tensors[name] = np.ascontiguousarray(np.asarray(x, "float32"))


def loss(kind, options, shape, labels, scores):
    x = rng.normal(size=shape)
    p = {"any": x, "probabilities": softmax(x), "unit": 1 / (1 + np.exp(-x)), "positive": np.abs(x) + 0.1}[scores]
    if labels == "classes":
        t = rng.integers(0, shape[-1], shape[:-1])
    elif labels == "one-hot":
        t = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    elif labels == "binary":
        t = rng.integers(0, 2, shape)
    elif labels == "probabilities":
        t = softmax(rng.normal(size=shape))
    else:
        t = np.abs(rng.normal(size=shape)) + 0.05 if labels == "positive" else rng.normal(size=shape)
    p, t = p.astype("float32"), t.astype("float32")
    fn = getattr(L, kind)(reduction=None, **options)
    each = lambda p: fn(t if labels != "classes" else t.astype("int32"), p).reshape(shape[0], -1).mean(1)
    name = f"{len(out['losses'])} {kind}"
    put(f"{name}/p", p), put(f"{name}/t", t), put(f"{name}/each", each(p))
    put(f"{name}/dp", jax.grad(lambda p: each(p).mean())(p))
    out["losses"].append({"name": name, "kind": kind, "options": options})


for shape in [(6, 5), (3, 2, 4, 3)]:
    for from_logits in (False, True):
        scores = "any" if from_logits else "probabilities"
        loss("SparseCategoricalCrossentropy", {"from_logits": from_logits}, shape, "classes", scores)
        for smoothing in (0.0, 0.1):
            options = {"from_logits": from_logits, "label_smoothing": smoothing}
            loss("CategoricalCrossentropy", options, shape, "one-hot", scores)
            loss("BinaryCrossentropy", options, shape, "binary", "any" if from_logits else "unit")
    for kind in ("MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "LogCosh", "CosineSimilarity"):
        loss(kind, {}, shape, "any", "any")
    for delta in (1.0, 0.5):
        loss("Huber", {"delta": delta}, shape, "any", "any")
    loss("MeanSquaredLogarithmicError", {}, shape, "positive", "positive")
    loss("Poisson", {}, shape, "positive", "positive")
    loss("Hinge", {}, shape, "binary", "any")
    loss("SquaredHinge", {}, shape, "binary", "any")
    loss("CategoricalHinge", {}, shape, "one-hot", "any")
    loss("KLDivergence", {}, shape, "probabilities", "probabilities")


def metric(kind, options, shape, labels):
    m = getattr(M, kind)(**options)
    name = f"{len(out['metrics'])} {kind}"
    results = []
    for batch in range(2):
        p = softmax(rng.normal(size=shape) * 2) if shape[-1] > 1 else rng.uniform(size=shape)
        if labels == "classes":
            t = rng.integers(0, shape[-1], shape[:-1])
        elif labels == "one-hot":
            t = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
        else:
            t = rng.integers(0, 2, shape)
        p, t = p.astype("float32"), t.astype("float32")
        m.update_state(t, p)
        results.append(float(m.result()))
        put(f"{name}/p{batch}", p), put(f"{name}/t{batch}", t)
    out["metrics"].append({"name": name, "kind": kind, "options": options, "results": results})


metric("SparseCategoricalAccuracy", {}, (40, 5), "classes")
metric("SparseCategoricalAccuracy", {}, (10, 3, 2, 4), "classes")
metric("CategoricalAccuracy", {}, (40, 5), "one-hot")
for k in (2, 5):
    metric("SparseTopKCategoricalAccuracy", {"k": k}, (40, 12), "classes")
    metric("TopKCategoricalAccuracy", {"k": k}, (40, 12), "one-hot")
for threshold in (0.5, 0.3):
    metric("BinaryAccuracy", {"threshold": threshold}, (40, 1), "binary")
for kind in ("Precision", "Recall"):
    metric(kind, {}, (40, 1), "binary")
    metric(kind, {"thresholds": 0.3}, (40, 6), "binary")
    metric(kind, {"class_id": 1, "thresholds": 0.2}, (40, 6), "one-hot")
for curve in ("ROC", "PR"):
    metric("AUC", {"curve": curve}, (50, 1), "binary")
    metric("AUC", {"curve": curve, "num_thresholds": 50}, (30, 4), "binary")
for kind in ("MeanSquaredError", "MeanAbsoluteError", "RootMeanSquaredError"):
    metric(kind, {}, (40, 3), "binary")

for kind, options in [
    ("ExponentialDecay", dict(decay_steps=7, decay_rate=0.6)),
    ("ExponentialDecay", dict(decay_steps=7, decay_rate=0.6, staircase=True)),
    ("InverseTimeDecay", dict(decay_steps=5, decay_rate=0.5)),
    ("InverseTimeDecay", dict(decay_steps=5, decay_rate=0.5, staircase=True)),
    ("CosineDecay", dict(decay_steps=30)),
    ("CosineDecay", dict(decay_steps=30, alpha=0.1)),
    ("CosineDecay", dict(decay_steps=20, alpha=0.05, warmup_target=0.5, warmup_steps=10)),
    ("CosineDecayRestarts", dict(first_decay_steps=6)),
    ("CosineDecayRestarts", dict(first_decay_steps=6, t_mul=1.5, m_mul=0.8, alpha=0.1)),
    ("CosineDecayRestarts", dict(first_decay_steps=8, t_mul=1.0, m_mul=0.9)),
    ("PolynomialDecay", dict(decay_steps=25, end_learning_rate=0.01)),
    ("PolynomialDecay", dict(decay_steps=11, end_learning_rate=0.01, power=2.0, cycle=True)),
]:
    schedule = getattr(S, kind)(initial_learning_rate=0.2, **options)
    out["schedules"].append({"kind": kind, "options": options, "rates": [float(schedule(i)) for i in range(40)]})
schedule = S.PiecewiseConstantDecay([5, 12, 20], [0.2, 0.1, 0.05, 0.01])
out["schedules"].append({"kind": "PiecewiseConstantDecay", "options": {}, "rates": [float(schedule(i)) for i in range(40)]})




def drive(callback, name, series):
    """Runs a callback on an epoch's weights of [epoch] and this series of values."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training, rates, epochs = False, [], 0
    for epoch, value in enumerate(series):
        callback.on_epoch_begin(epoch)
        model.set_weights([np.full((1, 1), epoch, "float32")])
        callback.on_epoch_end(epoch, {name: value, "loss": 1.0})
        rates.append(float(np.asarray(model.optimizer.learning_rate)))
        epochs = epoch + 1
        if model.stop_training:
            break
    callback.on_train_end()
    return epochs, int(model.get_weights()[0].item()), rates


falling = [1.0, 0.8, 0.85, 0.79, 0.81, 0.7, 0.72, 0.71, 0.73, 0.69, 0.7, 0.71, 0.72, 0.73]
rising = [0.5, 0.6, 0.55, 0.62, 0.61, 0.6, 0.63, 0.5, 0.5, 0.5, 0.5]
for series, name, options in [
    (falling, "val_loss", {}),
    (falling, "val_loss", {"patience": 2}),
    (falling, "val_loss", {"patience": 3, "restore_best_weights": True}),
    (falling, "val_loss", {"patience": 2, "min_delta": 0.05, "restore_best_weights": True}),
    (falling, "val_loss", {"patience": 3, "baseline": 0.75}),
    (falling, "val_loss", {"patience": 1, "start_from_epoch": 4, "restore_best_weights": True}),
    (rising, "val_accuracy", {"patience": 2, "restore_best_weights": True, "mode": "max"}),
    (rising, "val_accuracy", {"patience": 3, "mode": "max"}),
    (rising, "val_accuracy", {"patience": 1, "mode": "min", "restore_best_weights": True}),
    ([1.0, 0.9, 0.8], "val_loss", {"patience": 2, "restore_best_weights": True}),
]:
    epochs, weights, _ = drive(C.EarlyStopping(name, **options), name, series)
    out["early"].append({"value": name, "series": series, "options": options, "epochs": epochs, "weights": weights})
for series, name, options in [
    (falling, "val_loss", {"patience": 1}),
    (falling, "val_loss", {"patience": 2, "factor": 0.5}),
    (falling, "val_loss", {"patience": 1, "factor": 0.5, "cooldown": 2}),
    (falling, "val_loss", {"patience": 1, "factor": 0.5, "min_lr": 0.1}),
    (falling, "val_loss", {"patience": 2, "factor": 0.2, "min_delta": 0.05, "cooldown": 1}),
    (rising, "val_accuracy", {"patience": 1, "factor": 0.5, "mode": "max"}),
]:
    _, _, rates = drive(C.ReduceLROnPlateau(name, **options), name, series)
    out["plateau"].append({"value": name, "series": series, "options": options, "rates": rates})

K = keras.layers


def own(w):
    """A weight's path without its model's name."""
    return "/".join(w.path.split("/")[-2:])


def run(name, optimizer, sample_weight=None, class_weight=None):
    keras.utils.set_random_seed(3)
    x = rng.uniform(0, 1, (96 + 32, 8, 8, 1)).astype("float32")
    y = (x[:, :4].mean((1, 2, 3)) > x[:, 4:].mean((1, 2, 3))).astype("int32") + 2 * (x[:, 0, 0, 0] > 0.6)
    model = keras.Sequential([
        keras.Input((8, 8, 1)), K.Conv2D(4, 3, activation="relu", name="c"), K.BatchNormalization(name="b"),
        K.MaxPooling2D(2, name="p"), K.Flatten(name="f"), K.Dense(4, activation="softmax", name="d")])
    for w in model.weights:
        put(f"{name}/before/{own(w)}", w.value)
    put(f"{name}/x", x), put(f"{name}/y", y)
    losses = {}
    if sample_weight is not None:
        put(f"{name}/weights", sample_weight)

    class Statistics(C.Callback):
        def on_epoch_end(self, epoch, logs):
            for key, value in logs.items():
                losses.setdefault(key, []).append(value)
            for w in model.get_layer("b").non_trainable_variables:
                put(f"{name}/epoch{epoch}/{own(w)}", w.value)

    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:96], y[:96], epochs=3, batch_size=16, shuffle=False, verbose=0, sample_weight=sample_weight,
              class_weight=class_weight, validation_data=(x[96:], y[96:]), callbacks=[Statistics()])
    for w in model.weights:
        put(f"{name}/after/{own(w)}", w.value)
    out["runs"].append({"name": name, "history": losses, "class_weight": class_weight})


run("sgd", keras.optimizers.SGD(0.05, momentum=0.9))
run("adam", keras.optimizers.Adam(0.01))
run("weighted", keras.optimizers.Adam(0.01), sample_weight=rng.uniform(0, 2, 96).astype("float32"))
run("classes", keras.optimizers.RMSprop(0.003), class_weight={0: 1.0, 1: 0.5, 2: 2.0, 3: 0.1})

save_file(tensors, HERE / "training.safetensors")
(HERE / "training.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
print({k: len(v) for k, v in out.items()}, sum(t.nbytes for t in tensors.values()), "bytes")

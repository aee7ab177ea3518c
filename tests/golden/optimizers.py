#!/usr/bin/env python3
"""What Keras's optimisers, with each of their options, make of two weights in five steps on given gradients.

    pip install keras==3.15.1 jax==0.10.2 safetensors numpy
    KERAS_BACKEND=jax python tests/golden/optimizers.py

Writes optimizers.json, a list of name, class, rate and options, and optimizers.safetensors: the weights `w0` and `w1`,
their gradients `g0` and `g1` (5, …), and `NAME/0`, `NAME/1` (5, …) after each step.
"""
import json
import pathlib

import keras
import numpy as np
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(5)
first = [rng.normal(size=s).astype("float32") for s in ((3, 4), (5,))]
gradients = [(rng.normal(size=(5, *w.shape)) * [2.0, 0.2][k]).astype("float32") for k, w in enumerate(first)]
cases, tensors = [], {**{f"w{k}": w for k, w in enumerate(first)}, **{f"g{k}": g for k, g in enumerate(gradients)}}


def case(kind, decayed=False, **options):
    name = f"{len(cases):02} {kind}"
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5) if decayed else 0.05
    weights = [keras.Variable(w) for w in first]
    optimizer = getattr(keras.optimizers, kind)(learning_rate=rate, **options)
    optimizer.build(weights)
    after = [[], []]
    for step in range(5):
        optimizer.apply_gradients([(g[step], w) for g, w in zip(gradients, weights)])
        for k, w in enumerate(weights):
            after[k].append(np.asarray(w.value))
    tensors.update({f"{name}/{k}": np.stack(after[k]) for k in range(2)})
    cases.append({"name": name, "class": kind, "decayed": decayed, "options": options})


CLIPS = ({"clipnorm": 1.0}, {"clipvalue": 0.5}, {"global_clipnorm": 1.5})
OWN = {
    "SGD": ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    "Adam": ({}, {"beta_1": 0.8, "beta_2": 0.95}, {"epsilon": 0.01}, {"amsgrad": True}),
    "AdamW": ({}, {"amsgrad": True, "weight_decay": 0.1}),
    "RMSprop": ({}, {"rho": 0.8}, {"momentum": 0.9}, {"centered": True}, {"momentum": 0.9, "centered": True}),
    "Adagrad": ({}, {"initial_accumulator_value": 0.5}, {"epsilon": 0.01}),
    "Nadam": ({}, {"beta_1": 0.8, "beta_2": 0.95}, {"epsilon": 0.01}),
}
for kind, all_options in OWN.items():
    for options in (*all_options, *CLIPS, {"weight_decay": 0.1}, {"weight_decay": 0.1, "global_clipnorm": 1.5}):
        case(kind, **options)
    case(kind, decayed=True)

(HERE / "optimizers.json").write_text(json.dumps(cases, indent=0) + "\n")
save_file(tensors, HERE / "optimizers.safetensors")
print(len(cases), "cases")

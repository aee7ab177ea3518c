#!/usr/bin/env python3
"""Golden vectors: what Keras computes in float64, so that our definitions and Keras cannot share a mistake.

    pip install keras==3.15.1 jax==0.10.2 safetensors==0.8.0 numpy==2.4.6
    python tests/golden/make.py            # writes tests/golden/*.safetensors; last digits may depend on the processor
    python tests/golden/make.py matmul pad # runs these functions of this file only

Operations come from keras.ops and keras.losses on JAX's CPU back end, gradients from jax.vjp of
these, optimisers from keras.optimizers. Inputs are float32 numbers, the arithmetic is float64, results are rounded to float32.

One file per operation family. A tensor is named `<case>/<name>`; the metadata entry `cases` is a JSON object from
case to attributes. Images are NHWC, convolution weights (kh, kw, in, out), labels int32. `d<name>` is the gradient
of sum(y · dy) to <name>; `dy` is given. `padding` is "valid", "same" or [[top, bottom], [left, right]].

file           attributes                  given               computed
conv2d         stride, padding             x, w, dy            y, dx, dw
conv2d_groups  stride, padding, dilation, groups        x, w (kh, kw, in / groups, out), dy     y, dx, dw
depthwise      stride, padding, dilation   x, w (kh, kw, in, multiplier), dy            y, dx, dw
conv2d_transpose  stride, padding, dilation, output_padding      x, w (kh, kw, out, in), dy      y, dx, dw
conv1d         stride, padding, dilation   x, w (k, in, out), dy                        y, dx, dw
max_pool2d     size, stride, padding       x, dy               y, dx
avg_pool2d     size, stride, padding       x, dy               y, dx
global_pool    rule: "max", "average"      x, dy               y, dx
layer_norm     epsilon                     x, gamma, beta, dy  y, dx, dgamma, dbeta
group_norm     epsilon, groups             x, gamma, beta, dy  y, dx, dgamma, dbeta
batch_norm     epsilon                     x, gamma, beta, dy  y, mean, variance (biased), dx, dgamma, dbeta
                                           moving_mean, moving_variance   y_inference
softmax                                    x, dy               y, dx
log_softmax                                x, dy               y, dx
cross_entropy  labels: "sparse", "dense"   logits, labels      loss (per row), dlogits (of the sum of the losses)
matmul         transpose_a, transpose_b    a, b, dy            y, da, db
activation     function, arguments (a list)             x, dy               y, dx
concat         axis, count                 x0, x1, …, dy       y, dx0, dx1, …
resize         size, interpolation         x, dy               y, dx
pad            mode, pads, value           x, dy               y, dx
top_k          k                           x, dy               y, indices, first (argmax), dx
clip           rule: "norm", "global_norm", "value"; limit     g0, g1, …   c0, c1, …
recurrent      layer: "simple_rnn", "lstm", "gru_before", "gru_after"; bias: whether there is one; activation
               x (n, t, in), w, u, bias (gru_after: 2, 3u), h0 and c0 in some      y: the sequence of h and, of an LSTM, the
                                           last c behind it; dx, dw, du, dbias, dh0, dc0
embedding                                  table, indices (n, t), dy   y, dtable
optimizer      rule: "sgd": learning_rate, momentum, nesterov; "adam", "nadam": learning_rate, beta_1, beta_2, epsilon;
               "adamw": weight_decay too; "rmsprop": learning_rate, rho, momentum, epsilon, centered, weight_decay;
               "adagrad": learning_rate, epsilon (accumulators start at 0.1)
                                           w, g (steps, …)     moves (steps, …): the weights after each step − w
"""
import json
import os
import pathlib
import sys
import warnings

os.environ.update(KERAS_BACKEND="jax", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")
import jax
import keras
import numpy as np
from safetensors.numpy import save_file

keras.config.set_floatx("float64")
warnings.filterwarnings("ignore", message=".*(softmax over axis|categorical_crossentropy)")  # rows of one number
K = keras.ops


class Family:
    """The cases of one file."""

    def __init__(self, name):
        self.name, self.tensors, self.cases = name, {}, {}
        self.rng = np.random.default_rng(list(name.encode()))

    def uniform(self, *shape, low=-1.0, high=1.0):
        return self.rng.uniform(low, high, shape).astype(np.float32).astype(np.float64)

    def distinct(self, *shape):
        """No two alike, so that a maximum is where it is."""
        n = int(np.prod(shape))
        return ((self.rng.permutation(n).reshape(shape) - n // 2) / 128.0).astype(np.float64)

    def add(self, attributes, **tensors):
        case = f"{len(self.cases):02}"
        self.cases[case] = attributes
        for name, value in tensors.items():
            value = np.asarray(value)
            assert value.dtype in (np.float64, np.int32) and np.isfinite(value).all(), (self.name, case, name)
            value = value if value.dtype == np.int32 else value.astype(np.float32)
            self.tensors[f"{case}/{name}"] = np.ascontiguousarray(value)

    def save(self):
        path = pathlib.Path(__file__).with_name(f"{self.name}.safetensors")
        save_file(self.tensors, path, {"cases": json.dumps(self.cases)})
        print(f"{path.name}: {len(self.cases)} cases, {path.stat().st_size} bytes")


def differentiate(f, inputs, dy):
    """Returns f(inputs) and the gradients of sum(f · dy)."""
    y, vjp = jax.vjp(f, *inputs)
    return y, vjp(dy)


def conv2d():
    family = Family("conv2d")
    cases = [
        # n, h, w, in, out, (kh, kw), (sh, sw), padding
        (2, 5, 5, 1, 1, (3, 3), (1, 1), "valid"),
        (1, 6, 7, 1, 3, (1, 1), (1, 1), "valid"),
        (2, 6, 7, 3, 6, (1, 1), (2, 2), "valid"),
        (1, 7, 7, 16, 16, (1, 1), (1, 1), "same"),
        (1, 7, 6, 6, 16, (1, 1), (3, 2), "same"),
        (2, 9, 8, 1, 6, (5, 5), (1, 1), "valid"),
        (1, 9, 9, 6, 16, (5, 5), (1, 1), "valid"),
        (2, 8, 8, 1, 6, (5, 5), (1, 1), "same"),
        (1, 8, 9, 3, 3, (3, 3), (1, 1), "same"),
        (2, 8, 9, 3, 6, (3, 3), (2, 2), "same"),
        (2, 9, 8, 3, 6, (3, 3), (2, 2), "valid"),
        (1, 10, 11, 6, 3, (3, 3), (3, 3), "same"),
        (1, 10, 11, 6, 3, (3, 3), (3, 3), "valid"),
        (3, 7, 5, 16, 6, (3, 3), (1, 1), "same"),
        (1, 7, 7, 16, 16, (3, 3), (1, 1), "valid"),
        (1, 8, 7, 3, 16, (2, 2), (1, 1), "same"),
        (2, 7, 8, 16, 3, (2, 2), (2, 2), "same"),
        (1, 7, 8, 3, 1, (2, 2), (3, 3), "valid"),
        (2, 6, 9, 1, 3, (1, 7), (1, 1), "same"),
        (2, 9, 6, 3, 1, (7, 1), (1, 1), "same"),
        (1, 8, 9, 3, 6, (7, 7), (2, 2), "same"),
        (1, 9, 8, 3, 6, (7, 7), (1, 1), "valid"),
        (2, 9, 9, 3, 6, (3, 5), (1, 2), "same"),
        (2, 9, 9, 3, 6, (5, 3), (2, 1), "valid"),
        (1, 11, 10, 6, 6, (4, 2), (3, 1), "same"),
        (1, 10, 11, 1, 16, (2, 4), (1, 3), "valid"),
        (1, 8, 8, 3, 3, (6, 4), (2, 3), "same"),
        (2, 5, 5, 1, 3, (3, 3), (1, 1), [[1, 1], [1, 1]]),
        (1, 6, 6, 3, 6, (3, 3), (2, 2), [[0, 1], [0, 1]]),
        (1, 6, 6, 3, 6, (3, 3), (2, 2), [[1, 0], [1, 0]]),
        (2, 5, 6, 6, 3, (3, 2), (1, 1), [[2, 0], [0, 1]]),
        (1, 5, 7, 3, 16, (5, 3), (2, 1), [[3, 1], [0, 2]]),
        (1, 7, 7, 3, 6, (7, 7), (2, 2), [[3, 3], [3, 3]]),
        (2, 4, 4, 1, 3, (2, 2), (1, 1), [[3, 2], [2, 3]]),
        (1, 6, 5, 16, 6, (1, 1), (2, 2), [[1, 0], [0, 1]]),
        (1, 3, 3, 3, 3, (5, 5), (1, 1), [[2, 2], [1, 1]]),
        (1, 9, 10, 3, 3, (2, 3), (3, 2), [[0, 2], [1, 0]]),
        (2, 1, 1, 6, 16, (3, 3), (1, 1), "same"),
    ]
    for n, h, w, ic, oc, kernel, stride, padding in cases:
        def f(x, w):
            if isinstance(padding, str):
                return K.conv(x, w, stride, padding, data_format="channels_last")
            x = K.pad(x, [[0, 0], *padding, [0, 0]])
            return K.conv(x, w, stride, "valid", data_format="channels_last")

        x, weight = family.uniform(n, h, w, ic), family.uniform(*kernel, ic, oc)
        dy = family.uniform(*f(x, weight).shape)
        y, (dx, dw) = differentiate(f, (x, weight), dy)
        family.add({"stride": stride, "padding": padding}, x=x, w=weight, dy=dy, y=y, dx=dx, dw=dw)
    family.save()


def max_pool2d():
    family = Family("max_pool2d")
    cases = [
        # n, h, w, c, size, stride, padding
        (2, 6, 6, 1, (2, 2), (2, 2), "valid"),
        (1, 7, 7, 3, (2, 2), (2, 2), "valid"),
        (1, 7, 7, 3, (2, 2), (2, 2), "same"),
        (2, 6, 6, 6, (3, 3), (3, 3), "valid"),
        (2, 7, 8, 6, (3, 3), (3, 3), "same"),
        (1, 8, 7, 16, (3, 3), (2, 2), "valid"),
        (1, 8, 7, 16, (3, 3), (2, 2), "same"),
        (2, 5, 5, 3, (3, 3), (1, 1), "same"),
        (2, 5, 5, 3, (3, 3), (1, 1), "valid"),
        (1, 5, 6, 4, (2, 2), (1, 1), "valid"),
        (1, 5, 6, 4, (2, 2), (1, 1), "same"),
        (2, 7, 9, 1, (2, 3), (1, 2), "same"),
        (2, 7, 9, 1, (3, 2), (2, 1), "valid"),
        (1, 9, 9, 3, (2, 2), (3, 3), "valid"),
        (1, 9, 9, 3, (2, 2), (3, 3), "same"),
        (1, 6, 6, 3, (1, 1), (2, 2), "same"),
        (1, 6, 6, 3, (1, 1), (1, 1), "valid"),
        (2, 4, 4, 6, (4, 4), (4, 4), "valid"),
        (1, 3, 5, 3, (5, 5), (1, 1), "same"),
        (1, 10, 4, 3, (5, 2), (2, 2), "same"),
        (2, 11, 5, 1, (5, 1), (3, 1), "valid"),
        (3, 5, 5, 16, (2, 2), (2, 2), "valid"),
        (1, 8, 8, 5, (4, 3), (3, 2), "same"),
        (1, 1, 1, 7, (2, 2), (2, 2), "same"),
    ]
    for n, h, w, c, size, stride, padding in cases:
        def f(x):
            return K.max_pool(x, size, stride, padding, data_format="channels_last")

        x = family.distinct(n, h, w, c)
        dy = family.uniform(*f(x).shape)
        y, (dx,) = differentiate(f, (x,), dy)
        family.add({"size": size, "stride": stride, "padding": padding}, x=x, dy=dy, y=y, dx=dx)
    family.save()


def convolutions():
    """Grouped, depthwise, dilated, transposed and one-dimensional convolutions."""
    def add(family, attributes, f, x, weight):
        dy = family.uniform(*f(x, weight).shape)
        y, (dx, dw) = differentiate(f, (x, weight), dy)
        family.add(attributes, x=x, w=weight, dy=dy, y=y, dx=dx, dw=dw)

    windows = [
        # h, w, (kh, kw), stride, dilation, padding; Keras takes strides or dilation, not both
        (6, 7, (3, 3), 1, (1, 1), "same"), (7, 6, (3, 3), 2, (1, 1), "same"), (8, 9, (3, 2), 2, (1, 1), "valid"),
        (5, 5, (1, 1), 1, (1, 1), "valid"), (9, 8, (5, 3), 3, (1, 1), "same"), (9, 10, (3, 3), 1, (2, 2), "same"),
        (9, 9, (2, 3), 1, (3, 2), "valid"),
    ]
    family = Family("conv2d_groups")
    for h, w, kernel, stride, dilation, padding in windows:
        for groups, ic, oc in ((2, 4, 6), (3, 3, 9), (4, 8, 4)):
            f = lambda x, k: K.conv(x, k, stride, padding, data_format="channels_last", dilation_rate=dilation)
            x, weight = family.uniform(2, h, w, ic), family.uniform(*kernel, ic // groups, oc)
            attributes = {"stride": [stride, stride], "padding": padding, "dilation": dilation, "groups": groups}
            add(family, attributes, f, x, weight)
    family.save()
    family = Family("depthwise")
    for h, w, kernel, stride, dilation, padding in windows:
        for c, multiplier in ((1, 2), (5, 1), (8, 1), (3, 4)):
            f = lambda x, k: K.depthwise_conv(x, k, stride, padding, "channels_last", dilation)
            x, weight = family.uniform(2, h, w, c), family.uniform(*kernel, c, multiplier)
            attributes = {"stride": [stride, stride], "padding": padding, "dilation": dilation}
            add(family, attributes, f, x, weight)
    family.save()
    family = Family("conv2d_transpose")
    for h, w, kernel, stride, more, dilation in [
        (3, 4, (3, 3), (2, 2), None, 1), (4, 3, (2, 2), (2, 2), None, 1), (2, 5, (1, 1), (3, 3), None, 1),
        (3, 3, (4, 4), (2, 2), None, 1), (4, 4, (3, 5), (1, 1), None, 1), (3, 4, (3, 3), (3, 2), None, 1),
        (3, 3, (2, 3), (4, 3), None, 1), (3, 4, (3, 3), (2, 2), (1, 1), 1), (3, 3, (3, 3), (2, 2), (0, 0), 1),
        (2, 3, (4, 4), (3, 3), (1, 0), 1), (3, 3, (3, 3), (1, 1), None, 2), (1, 1, (5, 5), (2, 2), None, 1),
    ]:
        for padding in ("valid", "same"):
            f = lambda x, k: K.conv_transpose(x, k, stride, padding, more, "channels_last", dilation)
            x, weight = family.uniform(2, h, w, 3), family.uniform(*kernel, 4, 3)
            add(family, {"stride": stride, "padding": padding, "dilation": [dilation] * 2, "output_padding": more}, f, x,
                weight)
    family.save()
    family = Family("conv1d")
    for size, kernel, stride, dilation in [(9, 3, 1, 1), (9, 3, 2, 1), (10, 4, 3, 1), (11, 3, 1, 3), (5, 1, 2, 1)]:
        for padding in ("valid", "same"):
            for ic, oc in ((1, 3), (4, 2)):
                f = lambda x, k: K.conv(x, k, stride, padding, data_format="channels_last", dilation_rate=dilation)
                x, weight = family.uniform(2, size, ic), family.uniform(kernel, ic, oc)
                add(family, {"stride": [1, stride], "padding": padding, "dilation": [1, dilation]}, f, x, weight)
    family.save()


def pools():
    family = Family("avg_pool2d")
    for n, h, w, c, size, stride in [
        (2, 6, 6, 1, (2, 2), (2, 2)), (1, 7, 7, 3, (2, 2), (2, 2)), (2, 7, 8, 6, (3, 3), (3, 3)), (1, 8, 7, 16, (3, 3), (2, 2)),
        (2, 5, 5, 3, (3, 3), (1, 1)), (1, 5, 6, 4, (2, 2), (1, 1)), (2, 7, 9, 1, (2, 3), (1, 2)), (1, 9, 9, 3, (2, 2), (3, 3)),
        (1, 6, 6, 3, (1, 1), (2, 2)), (1, 8, 8, 5, (4, 3), (3, 2)), (2, 12, 11, 2, (9, 8), (2, 3)),
    ]:
        for padding in ("valid", "same"):
            f = lambda x: K.average_pool(x, size, stride, padding, data_format="channels_last")
            x = family.uniform(n, h, w, c)
            dy = family.uniform(*f(x).shape)
            y, (dx,) = differentiate(f, (x,), dy)
            family.add({"size": size, "stride": stride, "padding": padding}, x=x, dy=dy, y=y, dx=dx)
    family.save()
    family = Family("global_pool")
    for shape in [(2, 1, 1, 3), (1, 5, 4, 1), (3, 7, 7, 6), (2, 3, 8, 17), (1, 2, 2, 4), (2, 9, 2, 5), (1, 16, 15, 2),
                  (4, 3, 3, 8), (2, 1, 6, 7), (3, 6, 5, 16)]:
        for rule in ("max", "average"):
            # What the layers call.
            f = lambda x: (K.max if rule == "max" else K.mean)(x, axis=(1, 2))
            x, dy = family.distinct(*shape), family.uniform(shape[0], shape[3])
            if rule == "max" and shape[1] > 1:
                x[0, 0, 0] = x[0, 0, 1] = 99.0  # equal values
            y, (dx,) = differentiate(f, (x,), dy)
            family.add({"rule": rule}, x=x, dy=dy, y=y, dx=dx)
    family.save()


def norms():
    def add(family, attributes, f, x, shape):
        gamma, beta = family.uniform(*shape, low=0.5, high=1.5), family.uniform(*shape)
        dy = family.uniform(*x.shape)
        y, (dx, dgamma, dbeta) = differentiate(f, (x, gamma, beta), dy)
        family.add(attributes, x=x, gamma=gamma, beta=beta, dy=dy, y=y, dx=dx, dgamma=dgamma, dbeta=dbeta)

    family = Family("layer_norm")
    for i, (shape, last) in enumerate([((4, 3), 1), ((2, 17), 1), ((3, 4, 5), 1), ((3, 4, 5), 2), ((2, 3, 4, 6), 1),
                                       ((2, 3, 4, 6), 2), ((2, 3, 4, 6), 3), ((1, 65), 1), ((5, 2, 8), 1), ((2, 7, 16), 2)]):
        for epsilon in (1e-3, 1e-5):
            x = family.uniform(*shape, low=-2 + 10 * (i % 2), high=2 + 10 * (i % 2))
            f = lambda x, gamma, beta: K.layer_normalization(x, gamma, beta, tuple(range(-last, 0)), epsilon)
            add(family, {"epsilon": epsilon}, f, x, shape[-last:])
    family.save()
    family = Family("group_norm")
    for shape, groups in [((2, 3, 3, 4), 2), ((1, 4, 5, 6), 3), ((3, 2, 2, 8), 8), ((2, 4, 4, 6), 1), ((2, 5, 12), 4),
                          ((3, 16), 4), ((2, 1, 7, 15), 5), ((1, 8, 3, 16), 4), ((2, 3, 4, 7), 7), ((4, 2, 2, 10), 2)]:
        for epsilon in (1e-3, 1e-5):
            # What keras.layers.GroupNormalization computes; the layer itself would do so in float32.
            def f(x, gamma, beta):
                grouped = K.reshape(x, (*shape[:-1], groups, shape[-1] // groups))
                axes = (*range(1, len(shape) - 1), len(shape))
                mean, variance = K.moments(grouped, axes, keepdims=True)
                return K.reshape((grouped - mean) * K.rsqrt(variance + epsilon), shape) * gamma + beta

            add(family, {"epsilon": epsilon, "groups": groups}, f, family.uniform(*shape, low=-2, high=2), shape[-1:])
    family.save()


def batch_norm():
    family = Family("batch_norm")
    cases = [
        (shape, epsilon)
        for shape in [
            (2, 1), (8, 3), (5, 17), (32, 10), (2, 3, 3, 1), (1, 4, 5, 3), (3, 4, 4, 6), (4, 3, 5, 16), (2, 7, 7, 4),
            (7, 2, 3, 20), (2, 1, 1, 8),
        ]
        for epsilon in (1e-3, 1e-5)
    ]
    for i, (shape, epsilon) in enumerate(cases):
        c = shape[-1]
        axes = tuple(range(len(shape) - 1))

        # What keras.layers.BatchNormalization calls; the layer itself would compute in float32.
        def f(x, gamma, beta):
            mean, variance = K.moments(x, axes)
            return K.batch_normalization(x, mean, variance, -1, beta, gamma, epsilon), mean, variance

        # Every third case lies far from zero: a variance from E[x²] − E[x]² would lose its digits there.
        offset = 0.0 if i % 3 else 10.0
        x = family.uniform(*shape, low=offset - 2, high=offset + 2)
        gamma, beta = family.uniform(c, low=0.5, high=1.5), family.uniform(c)
        moving_mean, moving_variance = family.uniform(c), family.uniform(c, low=0.2, high=2.0)
        y, mean, variance = f(x, gamma, beta)
        dy = family.uniform(*shape)
        _, (dx, dgamma, dbeta) = differentiate(lambda *a: f(*a)[0], (x, gamma, beta), dy)
        inference = K.batch_normalization(x, moving_mean, moving_variance, -1, beta, gamma, epsilon)
        family.add(
            {"epsilon": epsilon}, x=x, gamma=gamma, beta=beta, dy=dy, y=y, mean=mean, variance=variance, dx=dx,
            dgamma=dgamma, dbeta=dbeta, moving_mean=moving_mean, moving_variance=moving_variance, y_inference=inference,
        )
    family.save()


ROWS = [(1, 1), (3, 1), (1, 2), (4, 2), (2, 3), (5, 7), (8, 10), (64, 10), (3, 16), (7, 17), (2, 33), (4, 64), (3, 65),
        (2, 100), (1, 257), (5, 5), (9, 4), (16, 8), (2, 10), (3, 10), (2, 6), (6, 12)]


def logits(family, i, shape):
    """Ordinary rows, wide rows, rows far from zero, rows of equal numbers."""
    low, high = [(-3, 3), (-3, 3), (-80, 80), (90, 95), (-600, -500)][i % 5]
    x = family.uniform(*shape, low=low, high=high)
    if i % 5 == 1:
        x[0] = x[0, 0]
    return x


def softmaxes():
    for name in ("softmax", "log_softmax"):
        family = Family(name)
        shapes = ROWS + [(2, 3, 5), (2, 3, 2, 4)]
        for i, shape in enumerate(shapes):
            f = lambda x: getattr(K, name)(x, axis=-1)
            x, dy = logits(family, i, shape), family.uniform(*shape)
            y, (dx,) = differentiate(f, (x,), dy)
            family.add({}, x=x, dy=dy, y=y, dx=dx)
        family.save()


def cross_entropy():
    family = Family("cross_entropy")
    for kind in ("sparse", "dense"):
        for i, (n, k) in enumerate(ROWS):
            x = logits(family, i, (n, k))
            index = family.rng.integers(0, k, n).astype(np.int32)
            if kind == "sparse":
                labels, loss = index, keras.losses.sparse_categorical_crossentropy
            else:
                labels, loss = np.eye(k)[index], keras.losses.categorical_crossentropy
                if i % 4 == 3:  # soft labels; multiples of 1/256, so that each row's sum is exactly one
                    labels = family.rng.multinomial(256, np.full(k, 1 / k), n) / 256.0
            y, (dx,) = differentiate(lambda x: loss(labels, x, from_logits=True), (x,), np.ones(n))
            family.add({"labels": kind}, logits=x, labels=labels, loss=y, dlogits=dx)
    family.save()


def matmul():
    family = Family("matmul")
    sizes = [((), 1, 1, 1), ((), 1, 7, 5), ((), 5, 1, 3), ((), 4, 9, 1), ((), 16, 16, 16), ((), 17, 33, 15),
             ((), 8, 65, 12), ((3,), 4, 5, 6), ((2,), 16, 7, 9)]
    for batch, m, k, n in sizes:
        for ta in (False, True):
            for tb in (False, True):
                def f(a, b):
                    a = K.swapaxes(a, -1, -2) if ta else a
                    b = K.swapaxes(b, -1, -2) if tb else b
                    return K.matmul(a, b)

                a = family.uniform(*batch, *((k, m) if ta else (m, k)))
                b = family.uniform(*batch, *((n, k) if tb else (k, n)))
                dy = family.uniform(*batch, m, n)
                y, (da, db) = differentiate(f, (a, b), dy)
                family.add({"transpose_a": ta, "transpose_b": tb}, a=a, b=b, dy=dy, y=y, da=da, db=db)
    family.save()


def activation():
    family = Family("activation")
    A = keras.activations
    functions = [
        ("relu6", [], A.relu6), ("leaky_relu", [0.2], K.leaky_relu), ("leaky_relu", [0.3], K.leaky_relu),
        ("elu", [1.0], K.elu), ("elu", [0.5], K.elu), ("selu", [], K.selu),
        ("gelu", [], lambda x: K.gelu(x, approximate=False)), ("gelu_tanh", [], lambda x: K.gelu(x, approximate=True)),
        ("erf", [], K.erf), ("softplus", [], K.softplus), ("softsign", [], K.softsign), ("mish", [], A.mish),
        ("silu", [], K.silu), ("hard_sigmoid", [], K.hard_sigmoid), ("hard_swish", [], K.hard_silu),
        ("clip", [-0.5, 0.75], K.clip), ("abs", [], K.abs), ("sign", [], K.sign), ("floor", [], K.floor),
        ("round", [], K.round), ("relu", [], K.relu), ("sigmoid", [], K.sigmoid), ("tanh", [], K.tanh),
    ]
    # Kinks where Keras's back ends agree on the gradient; halves for rounding.
    kinks = {"relu6": [0.0, 6.0], "relu": [0.0], "hard_sigmoid": [-3.0, 3.0], "hard_swish": [-3.0, 3.0],
             "round": [-2.5, -0.5, 0.5, 1.5], "floor": [-2.0, 0.0, 3.0]}
    for name, arguments, function in functions:
        arguments = [float(np.float32(a)) for a in arguments]
        f = lambda x: K.cast(function(x, *arguments), "float64")  # some give 32 bits back
        x = family.uniform(4, 12, low=-1, high=1) * np.array([[0.1], [2.0], [8.0], [20.0]])
        x = x.astype(np.float32).astype(np.float64)
        x[0, :len(kinks.get(name, []))] = kinks.get(name, [])
        dy = family.uniform(4, 12)
        y, (dx,) = differentiate(f, (x,), dy)
        family.add({"function": name, "arguments": arguments}, x=x, dy=dy, y=y, dx=dx)
    family.save()


def concat():
    family = Family("concat")
    for i in range(20):
        rank, count = 2 + i % 3, (1, 2, 3, 5)[i % 4]
        axis = 1 + i % (rank - 1)
        dims = [int(family.rng.integers(1, 6)) for _ in range(rank)]
        inputs = []
        for _ in range(count + 1):
            dims[axis] = int(family.rng.integers(1, 8))
            inputs.append(family.uniform(*dims))
        f = lambda *xs: K.concatenate(xs, axis)
        dy = family.uniform(*f(*inputs).shape)
        y, gradients = differentiate(f, inputs, dy)
        named = {f"x{k}": x for k, x in enumerate(inputs)} | {f"dx{k}": d for k, d in enumerate(gradients)}
        family.add({"axis": axis, "count": count + 1}, dy=dy, y=y, **named)
    family.save()


def resize():
    family = Family("resize")
    cases = [(2, 3, 4, 1, (6, 8)), (1, 5, 5, 3, (10, 15)), (1, 7, 6, 4, (3, 9)), (2, 8, 8, 2, (4, 4)), (1, 9, 7, 3, (4, 5)),
             (1, 1, 5, 3, (4, 7)), (1, 4, 4, 1, (1, 1)), (2, 6, 5, 4, (7, 6)), (1, 3, 3, 8, (9, 9)), (1, 12, 5, 1, (5, 12))]
    for n, h, w, c, size in cases:
        for interpolation in ("nearest", "bilinear"):
            f = lambda x: K.image.resize(x, size, interpolation=interpolation, antialias=False, data_format="channels_last")
            x = family.uniform(n, h, w, c)
            dy = family.uniform(n, *size, c)
            y, (dx,) = differentiate(f, (x,), dy)
            family.add({"size": size, "interpolation": interpolation}, x=x, dy=dy, y=y, dx=dx)
    family.save()


def pad():
    family = Family("pad")
    cases = [(2, 4, 5, 1, [[1, 1], [1, 1]]), (1, 5, 4, 3, [[0, 2], [3, 1]]), (1, 3, 3, 4, [[2, 2], [2, 2]]), (2, 6, 7, 2, [[3, 0], [0, 4]]),
             (1, 2, 2, 5, [[1, 0], [0, 1]]), (1, 7, 3, 1, [[0, 0], [2, 1]]), (1, 5, 5, 4, [[4, 4], [4, 4]])]
    for n, h, w, c, pads in cases:
        for mode, keras_mode, value in (("constant", "constant", 0.5), ("reflect", "reflect", None), ("replicate", None, None)):
            def f(x):
                if mode == "replicate":  # Keras has no such mode; the image's edges by index.
                    rows = np.clip(np.arange(-pads[0][0], h + pads[0][1]), 0, h - 1)
                    columns = np.clip(np.arange(-pads[1][0], w + pads[1][1]), 0, w - 1)
                    return K.take(K.take(x, rows, axis=1), columns, axis=2)
                return K.pad(x, [[0, 0], *pads, [0, 0]], keras_mode, value)

            x = family.uniform(n, h, w, c)
            dy = family.uniform(*f(x).shape)
            y, (dx,) = differentiate(f, (x,), dy)
            family.add({"mode": mode, "pads": pads, "value": value or 0.0}, x=x, dy=dy, y=y, dx=dx)
    family.save()


def top_k():
    family = Family("top_k")
    for i, (n, c) in enumerate(ROWS):
        k = 1 + i % min(c, 5)
        x = family.distinct(n, c)
        f = lambda x: K.top_k(x, k)[0]
        dy = family.uniform(n, k)
        y, (dx,) = differentiate(f, (x,), dy)
        # Ties are in the indices alone: there is no gradient at them.
        ties = family.rng.integers(0, 3, (n, c)).astype(np.float64)
        indices, first = (np.asarray(v).astype(np.int32) for v in (K.top_k(ties, k)[1], K.argmax(ties, -1)))
        family.add({"k": k}, x=x, dy=dy, y=y, dx=dx, ties=ties, indices=indices, first=first)
    family.save()


def clip():
    family = Family("clip")
    for i in range(24):
        rule, limit = ("norm", "global_norm", "value")[i % 3], (0.5, 1.0, 3.0, 20.0)[i // 3 % 4]
        options = {"norm": "clipnorm", "global_norm": "global_clipnorm", "value": "clipvalue"}
        gradients = [family.uniform(3, 4), family.uniform(7), family.uniform(2, 2, 3, 4)]
        optimizer = keras.optimizers.SGD(**{options[rule]: limit})
        clipped = optimizer._clip_gradients([K.convert_to_tensor(g) for g in gradients])
        named = {f"g{k}": g for k, g in enumerate(gradients)} | {f"c{k}": c for k, c in enumerate(clipped)}
        family.add({"rule": rule, "limit": limit}, **named)
    family.save()


def recurrent():
    family = Family("recurrent")
    layers = {"simple_rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru_before": keras.layers.GRU,
              "gru_after": keras.layers.GRU}
    shapes = [(2, 3, 2, 3), (1, 1, 3, 4), (3, 5, 1, 1), (2, 7, 4, 5), (1, 12, 3, 8), (2, 4, 6, 17)]
    cases = [(layer, *shape, i % 3 != 1, i % 2 == 1, "tanh") for layer in layers for i, shape in enumerate(shapes)]
    cases += [("simple_rnn", 2, 4, 3, 5, True, True, a) for a in ("linear", "relu", "sigmoid")]
    cases += [("lstm", 2, 4, 3, 5, True, False, "relu"), ("gru_after", 2, 4, 3, 5, True, False, "sigmoid")]
    for name, n, t, width, units, bias, states, activation in cases:
        options = {"reset_after": name == "gru_after"} if name.startswith("gru") else {}
        # Keras's own tanh gives 32 bits back.
        function = jax.numpy.tanh if activation == "tanh" else activation
        layer = layers[name](units, activation=function, use_bias=bias, return_sequences=True, return_state=True,
                             dtype="float64", **options)
        layer.build((n, t, width))
        given = {"x": family.uniform(n, t, width)}
        names = ["w", "u", "bias"][:2 + bias]
        for weight, variable in zip(names, layer.trainable_variables, strict=True):
            given[weight] = family.uniform(*variable.shape)
        if states:
            given["h0"] = family.uniform(n, units)
        if states and name == "lstm":
            given["c0"] = family.uniform(n, units)

        def f(*values):
            v = dict(zip(given, values))
            initial = [v[k] for k in ("h0", "c0") if k in v] or None
            seed = [variable.value for variable in layer.non_trainable_variables]
            (y, *last), _ = layer.stateless_call([v[k] for k in names], seed, v["x"], initial_state=initial)
            return K.concatenate([y, last[1][:, None]], 1) if name == "lstm" else y

        values = list(given.values())
        dy = family.uniform(*f(*values).shape)
        y, gradients = differentiate(f, values, dy)
        attributes = {"layer": name, "bias": bool(bias), "activation": activation}
        family.add(attributes, dy=dy, y=y, **given, **{f"d{k}": d for k, d in zip(given, gradients)})
    family.save()


def embedding():
    family = Family("embedding")
    for i in range(20):
        n, t, rows, width = 1 + i % 4, (1, 3, 8)[i % 3], (1, 5, 17, 40)[i % 4], (1, 3, 4, 8, 16)[i % 5]
        layer = keras.layers.Embedding(rows, width, dtype="float64")
        layer.build((n, t))
        table, indices = family.uniform(rows, width), family.rng.integers(0, rows, (n, t)).astype(np.int32)
        f = lambda table: layer.stateless_call([table], [], indices)[0]
        dy = family.uniform(n, t, width)
        y, (dtable,) = differentiate(f, (table,), dy)
        family.add({}, x=indices, table=table, dy=dy, y=y, dtable=dtable)
    family.save()


def optimizer():
    family = Family("optimizer")
    sgd = [dict(rule="sgd", learning_rate=lr, momentum=momentum, nesterov=nesterov)
           for lr in (1e-2, 0.3) for momentum in (0.0, 0.5, 0.9) for nesterov in (False, True)]
    adam = [dict(rule="adam", learning_rate=lr, beta_1=b1, beta_2=b2, epsilon=epsilon)
            for lr in (1e-3, 4e-3) for b1 in (0.9, 0.5) for b2 in (0.999, 0.95) for epsilon in (1e-7, 1e-3)]
    adamw = [dict(rule="adamw", learning_rate=lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=decay)
             for lr in (1e-3, 0.1) for decay in (0.004, 0.5)]
    nadam = [dict(rule="nadam", learning_rate=lr, beta_1=b1, beta_2=b2, epsilon=epsilon)
             for lr in (1e-3, 4e-3) for b1 in (0.9, 0.5) for b2, epsilon in ((0.999, 1e-7), (0.95, 1e-3))]
    rmsprop = [dict(rule="rmsprop", learning_rate=lr, rho=rho, momentum=momentum, epsilon=epsilon, centered=centered, weight_decay=decay)
               for lr, epsilon, decay in ((1e-3, 1e-7, 0.0), (1e-2, 1e-3, 0.1)) for rho in (0.9, 0.5) for momentum in (0.0, 0.9)
               for centered in (False, True)]
    adagrad = [dict(rule="adagrad", learning_rate=lr, epsilon=epsilon) for lr in (1e-3, 0.1) for epsilon in (1e-7, 1e-3)]
    for attributes in sgd + adam + adamw + nadam + rmsprop + adagrad:
        # The numbers as a program that holds them in 32 bits has them.
        attributes = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in attributes.items()}
        rule = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW,
                "nadam": keras.optimizers.Nadam, "rmsprop": keras.optimizers.RMSprop,
                "adagrad": keras.optimizers.Adagrad}[attributes["rule"]]
        w, g = family.uniform(5, 3), family.uniform(8, 5, 3, low=-2, high=2)
        optimizer, weights = rule(**{k: v for k, v in attributes.items() if k != "rule"}), keras.Variable(w)
        moves = []
        for gradient in g:
            optimizer.apply([K.convert_to_tensor(gradient)], [weights])
            moves.append(np.asarray(weights.value) - w)
        family.add(attributes, w=w, g=g, moves=np.stack(moves))
    family.save()


ALL = {f.__name__: f for f in [
    conv2d, convolutions, max_pool2d, pools, norms, batch_norm, softmaxes, cross_entropy, matmul, activation, concat, resize, pad,
    top_k, clip, recurrent, embedding, optimizer,
]}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(ALL)
    if unknown := [name for name in wanted if name not in ALL]:
        sys.exit(f"{unknown}: no such function; there are {', '.join(ALL)}")
    for name in wanted:
        ALL[name]()

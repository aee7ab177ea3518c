"""Makes layers.json and layers.safetensors: what Keras 3 computes for every layer with every option.

    pip install keras==3.15.1 jax==0.10.2 safetensors==0.8.0 numpy==2.4.6
    python tests/golden/layers.py          # computes the cases that are new or changed, and keeps the others
    python tests/golden/layers.py --all    # computes every case again, after a change of Keras or of a definition here

Last digits depend on the processor. Each case is a functional model (its JSON in layers.json) with, under the case's name,
in/INPUT, w/WEIGHT, out/K, dy/K, and of the loss sum(out * dy) + regularisers din/INPUT, dw/WEIGHT, losses (the
regularisers' sum), constrained/WEIGHT where a weight has a constraint, and in training after/WEIGHT of the moving
statistics.
"""

import json
import os
import pathlib
import re
import sys
import zlib

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from keras import layers as L
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
N = 2
cases, tensors = [], {}
ALL = "--all" in sys.argv
OLD_CASES = {} if ALL else {c["name"]: c for c in json.loads((HERE / "layers.json").read_text())}
OLD_TENSORS = {} if ALL else load_file(HERE / "layers.safetensors")


def image(h=6, w=5, c=3):
    return keras.Input((h, w, c), name="x")


def first(h=6, w=5, c=3):
    return keras.Input((c, h, w), name="x")


def sequence(t=7, c=3):
    return keras.Input((t, c), name="x")


def vector(c=6):
    return keras.Input((c,), name="x")


def case(layer, options, inputs, outputs, training=False, scale=1.0, integers=None):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    outputs = keras.tree.flatten(outputs)
    label = "+".join(options) or "default"
    name, k = f"{layer}/{label}", 1
    while any(c["name"] == name for c in cases):
        k += 1
        name = f"{layer}/{label}{k}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model = keras.Model(inputs, list(outputs), name="model")
    feeds = []
    for k, t in enumerate(inputs):
        shape = (N,) + tuple(t.shape[1:])
        if integers:
            feeds.append(rng.integers(0, integers, shape).astype("int32"))
        else:
            # Numbers apart from each other and from 0: no ties and no kinks.
            n = int(np.prod(shape))
            x = (np.arange(n) - n / 2 + 0.37 + 0.07 * k) / n * 4.0 * scale
            feeds.append(rng.permutation(x).reshape(shape).astype("float32"))
    record = {"name": name, "layer": layer, "options": list(options), "model": json.loads(model.to_json()), "training": training}
    cases.append(record)
    old = {key: x for key, x in OLD_TENSORS.items() if key.startswith(f"{name}/")}
    if OLD_CASES.get(name) == record and all(np.array_equal(old[f"{name}/in/{t.name}"], x) for t, x in zip(inputs, feeds)):
        tensors.update(old)
        return
    for v in model.variables:
        if "seed" in v.path:
            continue
        x = rng.normal(size=v.shape) * 0.5
        if "variance" in v.path:
            x = np.abs(x) + 0.5
        if v.path.endswith("count"):
            x = np.zeros(v.shape)
        v.assign(x.astype(str(v.dtype)))
    for l in model.layers:
        if isinstance(l, L.Normalization):
            l.finalize_state()
    tv = [v.value for v in model.trainable_variables]
    ntv = [v.value for v in model.non_trainable_variables]

    def run(tv, feeds, training=training):
        y, after, losses = model.stateless_call(tv, ntv, feeds, training=training, return_losses=True)
        return keras.tree.flatten(y), after, sum(losses) if losses else 0.0

    ys, after, losses = run(tv, feeds)
    dys = [rng.normal(size=y.shape).astype("float32") for y in ys]

    def loss(tv, feeds):
        ys, _, losses = run(tv, feeds)
        return sum((y * dy).sum() for y, dy in zip(ys, dys)) + losses

    wrt = (0,) if integers else (0, 1)
    grads = jax.grad(loss, wrt)(tv, feeds)
    # Of one number, `ascontiguousarray` makes a list.
    put = lambda key, x: tensors.__setitem__(f"{name}/{key}", np.ascontiguousarray(x) if np.ndim(x) or key == "losses" else np.asarray(x))
    for t, x in zip(inputs, feeds):
        put(f"in/{t.name}", x)
    for v in model.variables:
        if "seed" not in v.path:
            put(f"w/{path(v)}", np.asarray(v.value, "float32"))
    for i, (y, dy) in enumerate(zip(ys, dys)):
        put(f"out/{i}", y), put(f"dy/{i}", dy)
    for v, d in zip(model.trainable_variables, grads[0]):
        put(f"dw/{path(v)}", d)
    if not integers:
        for t, d in zip(inputs, grads[1]):
            put(f"din/{t.name}", d)
    put("losses", np.float32(losses))
    for v in model.variables:
        if getattr(v, "constraint", None) is not None:
            put(f"constrained/{path(v)}", v.constraint(v.value))
    if training:
        for v, x in zip(model.non_trainable_variables, after):
            if ("moving" in v.path or "vector_u" in v.path) and v.path.split("/")[0] not in frozen:
                put(f"after/{path(v)}", x)


frozen = set()


def path(v):
    """The path of a variable; Keras leaves ConvNeXt's scales without a name."""
    return re.sub("/variable(_\\d+)?$", "/gamma", v.path)


L1, L2 = keras.regularizers.L1, keras.regularizers.L2
C = keras.constraints
REG = {"reg": L2(0.02), "act": keras.regularizers.L1L2(0.01, 0.02)}


def each(layer, make, options, **more):
    """A case for each of `options`, dictionaries of arguments of the layer; `make` builds model ends from them."""
    for o in options:
        x, y = make(**o)
        case(layer, [k for k in o], x, y, **more)


def weights_options(*names):
    out = []
    for n in names:
        out += [{f"{n}_regularizer": L1(0.03)}, {f"{n}_regularizer": L2(0.02)}, {f"{n}_constraint": C.MaxNorm(0.7)}]
    return out + [
        {f"{names[0]}_regularizer": keras.regularizers.L1L2(0.01, 0.02), f"{names[-1]}_constraint": C.NonNeg()},
        {f"{names[0]}_constraint": C.UnitNorm()},
        {f"{names[0]}_constraint": C.MinMaxNorm(0.3, 0.8, rate=0.6)},
        {"activity_regularizer": L2(0.03)},
        {"activity_regularizer": L1(0.03)},
    ]


def conv(cls, weights, first_ok=True, **base):
    def make(data_format="channels_last", **o):
        x = first(c=4) if data_format == "channels_first" else image(c=4)
        args = {**base, **o}
        if data_format != "channels_last":
            args["data_format"] = data_format
        return x, cls(name="l", **args)(x)

    return make


common = [
    {},
    {"strides": (2, 1)},
    {"strides": 2, "padding": "same"},
    {"padding": "same"},
    {"padding": "valid"},
    {"data_format": "channels_first"},
    {"data_format": "channels_first", "padding": "same", "strides": 2},
    {"dilation_rate": (2, 1)},
    {"dilation_rate": 2, "padding": "same"},
    {"activation": "relu"},
    {"activation": "softmax"},
    {"use_bias": False},
    {"kernel_size": (3, 2)},
    {"kernel_size": 2, "padding": "same", "strides": 2},
    {"kernel_size": 1},
    {"bias_initializer": "ones"},
]
each("Conv2D", conv(L.Conv2D, ["kernel", "bias"], filters=4, kernel_size=3), common + [
    {"filters": 5}, {"groups": 2}, {"groups": 4, "padding": "same", "strides": 2}, {"groups": 2, "dilation_rate": 2, "padding": "same"},
    {"kernel_initializer": "he_normal"}] + weights_options("kernel", "bias") + [{"kernel_constraint": C.MaxNorm(0.7, axis=[0, 1, 2])}])
each("DepthwiseConv2D", conv(L.DepthwiseConv2D, ["depthwise", "bias"], kernel_size=3),
    [o for o in common if o != {"strides": (2, 1)}] + [{"depth_multiplier": 2}, {"depth_multiplier": 3, "padding": "same", "strides": 2}, {"strides": 2},
    {"depthwise_initializer": "lecun_uniform"}] + weights_options("depthwise", "bias"))
each("SeparableConv2D", conv(L.SeparableConv2D, ["depthwise", "pointwise", "bias"], filters=5, kernel_size=3),
    [o for o in common if o != {"strides": (2, 1)}] + [{"filters": 3}, {"depth_multiplier": 2}, {"strides": 2}, {"depthwise_initializer": "he_uniform"},
    {"pointwise_initializer": "orthogonal"}] + weights_options("depthwise", "pointwise", "bias"))
each("Conv2DTranspose", conv(L.Conv2DTranspose, ["kernel", "bias"], filters=3, kernel_size=3),
    [o for o in common if o != {"dilation_rate": 2, "padding": "same"}] + [{"filters": 5}, {"output_padding": 1, "strides": 2},
    {"output_padding": (1, 0), "strides": 2, "padding": "same"}, {"strides": 3, "kernel_size": 2}, {"kernel_initializer": "glorot_normal"}]
    + weights_options("kernel", "bias"))


def conv1d(data_format="channels_last", **o):
    x = keras.Input((4, 9) if data_format == "channels_first" else (9, 4), name="x")
    args = {**{"filters": 4, "kernel_size": 3}, **o}
    if data_format != "channels_last":
        args["data_format"] = data_format
    return x, L.Conv1D(name="l", **args)(x)


each("Conv1D", conv1d, [{}, {"filters": 5}, {"kernel_size": 2}, {"strides": 2}, {"padding": "same"}, {"padding": "same", "strides": 2}, {"padding": "causal"},
    {"padding": "causal", "dilation_rate": 2}, {"dilation_rate": 2}, {"groups": 2}, {"data_format": "channels_first"}, {"activation": "tanh"},
    {"use_bias": False}, {"kernel_initializer": "he_normal"}, {"bias_initializer": "ones"}] + weights_options("kernel", "bias"))


def dense(shape=(6,), **o):
    x = keras.Input(shape, name="x")
    return x, L.Dense(name="l", **{**{"units": 5}, **o})(x)


each("Dense", dense, [{}, {"units": 3}, {"activation": "sigmoid"}, {"activation": "softmax"}, {"use_bias": False}, {"bias_initializer": "ones"}]
    + weights_options("kernel", "bias"))
x = keras.Input((4, 3, 6), name="x")
case("Dense", ["units"], x, L.Dense(4, name="l", activation="relu")(x))
for i in ["zeros", "ones", keras.initializers.Constant(0.3), keras.initializers.RandomUniform(-0.2, 0.1), keras.initializers.RandomNormal(0.1, 0.2),
          keras.initializers.TruncatedNormal(), "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal",
          keras.initializers.VarianceScaling(2.0, "fan_avg", "uniform"), keras.initializers.Orthogonal(0.5)]:
    x = vector()
    case("Dense", ["kernel_initializer"], x, L.Dense(4, name="l", kernel_initializer=i)(x))


def pool(cls, dims):
    def make(data_format="channels_last", **o):
        shape = ([6, 5] if dims == 2 else [9]) + [3]
        if data_format == "channels_first":
            shape = shape[-1:] + shape[:-1]
        x = keras.Input(tuple(shape), name="x")
        args = {**{"pool_size": 2}, **o}
        if data_format != "channels_last":
            args["data_format"] = data_format
        return x, cls(name="l", **args)(x)

    return make


for cls in [L.MaxPooling2D, L.AveragePooling2D]:
    each(cls.__name__, pool(cls, 2), [{}, {"pool_size": 3}, {"pool_size": (3, 2)}, {"strides": 1}, {"strides": (2, 1), "pool_size": 3},
        {"padding": "same"}, {"padding": "same", "pool_size": 3, "strides": 2}, {"data_format": "channels_first"}])
for cls in [L.MaxPooling1D, L.AveragePooling1D]:
    each(cls.__name__, pool(cls, 1), [{}, {"pool_size": 3}, {"strides": 1}, {"padding": "same"}, {"padding": "same", "strides": 2, "pool_size": 3},
        {"data_format": "channels_first"}])


def plain(cls, shape, first_shape=None, positional=()):
    def make(data_format="channels_last", **o):
        x = keras.Input(first_shape if data_format == "channels_first" else shape, name="x")
        if data_format != "channels_last":
            o["data_format"] = data_format
        return x, cls(*positional, name="l", **o)(x)

    return make


CF = {"data_format": "channels_first"}
for cls in [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D]:
    each(cls.__name__, plain(cls, (6, 5, 3), (3, 6, 5)), [{}, {"keepdims": True}, CF, {**CF, "keepdims": True}])
for cls in [L.GlobalAveragePooling1D, L.GlobalMaxPooling1D]:
    each(cls.__name__, plain(cls, (7, 3), (3, 7)), [{}, {"keepdims": True}, CF])
for cls in [L.GlobalAveragePooling3D, L.GlobalMaxPooling3D]:
    each(cls.__name__, plain(cls, (4, 3, 5, 3), (3, 4, 3, 5)), [{}, {"keepdims": True}, CF])
each("ZeroPadding2D", plain(L.ZeroPadding2D, (6, 5, 3), (3, 6, 5)), [{}, {"padding": 2}, {"padding": (1, 3)}, {"padding": ((0, 1), (2, 3))}, CF])
each("Cropping2D", plain(L.Cropping2D, (6, 5, 3), (3, 6, 5)), [{"cropping": 1}, {"cropping": (2, 1)}, {"cropping": ((0, 1), (2, 1))}, {"cropping": 1, **CF}])
each("ZeroPadding3D", plain(L.ZeroPadding3D, (4, 3, 5, 3), (3, 4, 3, 5)), [{}, {"padding": 2}, {"padding": (1, 0, 2)}, {"padding": ((0, 1), (2, 3), (1, 0))}, CF])
each("Cropping3D", plain(L.Cropping3D, (4, 3, 5, 3), (3, 4, 3, 5)), [{}, {"cropping": (1, 0, 2)}, {"cropping": ((0, 1), (1, 0), (1, 2))}, CF])
each("UpSampling3D", plain(L.UpSampling3D, (3, 2, 4, 3), (3, 3, 2, 4)), [{}, {"size": (1, 3, 2)}, CF])
V = {"padding": "same"}
for cls in [L.MaxPooling3D, L.AveragePooling3D]:
    windows = lambda cls=cls, **o: cls(**{"pool_size": 2, **o})
    each(cls.__name__, plain(windows, (5, 4, 6, 2), (2, 5, 4, 6)), [{}, {"pool_size": 3}, {"pool_size": (1, 2, 3)}, {"strides": 1}, {"strides": (1, 2, 3)},
        V, {**V, "pool_size": 3, "strides": 2}, CF])
each("Conv3D", plain(L.Conv3D, (5, 4, 6, 4), (4, 5, 4, 6), (4, 3)), [{}, {"strides": (2, 1, 2)}, V, {**V, "strides": 2}, CF, {**CF, **V, "strides": 2},
    {"dilation_rate": (2, 1, 1)}, {**V, "dilation_rate": 2}, {"activation": "relu"}, {"activation": "softmax"}, {"use_bias": False}, {"groups": 2},
    {**V, "groups": 4, "strides": 2}, {"kernel_initializer": "he_normal"}, {"bias_initializer": "ones"}] + weights_options("kernel", "bias"))
each("Conv3D", plain(L.Conv3D, (5, 4, 6, 2), None), [{"filters": 3, "kernel_size": (1, 2, 3)}, {"filters": 2, "kernel_size": 2, **V, "strides": 2}])
each("ZeroPadding1D", plain(L.ZeroPadding1D, (7, 3), (3, 7)), [{}, {"padding": 2}, {"padding": (0, 3)}, CF])
each("Cropping1D", plain(L.Cropping1D, (7, 3)), [{}, {"cropping": 2}, {"cropping": (0, 3)}])
each("UpSampling2D", plain(L.UpSampling2D, (3, 4, 2), (2, 3, 4)), [{}, {"size": 3}, {"size": (2, 3)}, {"interpolation": "nearest"}, {"interpolation": "bilinear"},
    {"interpolation": "bilinear", "size": (3, 2)}, CF])
each("UpSampling1D", plain(L.UpSampling1D, (5, 3)), [{}, {"size": 3}])
each("Resizing", plain(L.Resizing, (6, 5, 3), (3, 6, 5)), [{"height": 4, "width": 7}, {"height": 9, "width": 3, "interpolation": "nearest"},
    {"height": 12, "width": 10, "interpolation": "bilinear"}, {"height": 4, "width": 2, "crop_to_aspect_ratio": True}, {"height": 4, "width": 7, **CF}])
each("Flatten", plain(L.Flatten, (4, 3, 2), (2, 4, 3)), [{}, CF])
each("Reshape", plain(L.Reshape, (4, 6)), [{"target_shape": (3, 8)}, {"target_shape": (2, -1, 3)}, {"target_shape": (24,)}])
each("Permute", plain(L.Permute, (4, 3, 2)), [{"dims": (2, 1, 3)}, {"dims": (3, 1, 2)}])
each("RepeatVector", plain(L.RepeatVector, (4,)), [{"n": 3}])
norm = [{}, {"epsilon": 0.1}, {"center": False}, {"scale": False}, {"center": False, "scale": False}, {"beta_initializer": "ones"}, {"gamma_initializer": "zeros"},
    {"beta_regularizer": L2(0.02)}, {"gamma_regularizer": L1(0.02)}, {"beta_constraint": C.NonNeg()}, {"gamma_constraint": C.MaxNorm(0.5)}]
bn = norm + [{"momentum": 0.9}, {"axis": 1}, {"axis": 2}, {"moving_mean_initializer": "ones"}, {"moving_variance_initializer": "zeros"}]
each("BatchNormalization", plain(L.BatchNormalization, (4, 3, 5)), bn)
each("BatchNormalization", plain(L.BatchNormalization, (4, 3, 5)), bn, training=True)
each("BatchNormalization", plain(L.BatchNormalization, (6,)), [{}], training=True)
frozen.add("l")
each("BatchNormalization", plain(L.BatchNormalization, (4, 3, 5)), [{"trainable": False}], training=True)
frozen.clear()
each("LayerNormalization", plain(L.LayerNormalization, (4, 3, 5)), norm + [{"axis": 1}, {"axis": (1, 3)}, {"axis": (2, 3)}, {"axis": -2}])
each("GroupNormalization", plain(L.GroupNormalization, (4, 3, 6)), [{**o, "groups": 3} for o in norm] + [{"groups": 1}, {"groups": -1}, {"groups": 2, "axis": 1}])
each("GroupNormalization", plain(L.GroupNormalization, (2, 3, 32)), [{}])
each("Dropout", plain(L.Dropout, (4, 3)), [{"rate": 0.3}, {"rate": 0.3, "noise_shape": (None, 1, 3)}])
each("SpatialDropout2D", plain(L.SpatialDropout2D, (4, 3, 2), (2, 4, 3)), [{"rate": 0.3}, {"rate": 0.3, **CF}])
each("GaussianNoise", plain(L.GaussianNoise, (4, 3)), [{"stddev": 0.3}])
for a in ["linear", "relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "hard_sigmoid", "hard_silu", "silu", "gelu", "softplus", "softsign", "mish",
          "exponential", "tanh", "softmax", "log_softmax", "log_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "sparse_plus",
          "sparse_sigmoid", "sparsemax", "squareplus", "celu", "glu"]:
    x = image(c=4) if a == "glu" else image()
    case("Activation", [a], x, L.Activation(a, name="l")(x), scale=4.0)
for o in [{}, {"max_value": 1.0}, {"max_value": 6.0}, {"negative_slope": 0.1}, {"threshold": 0.5}, {"max_value": 1.5, "negative_slope": 0.2, "threshold": 0.3}]:
    x = image()
    case("ReLU", list(o), x, L.ReLU(name="l", **o)(x), scale=4.0)
for cls, options in [(L.LeakyReLU, [{}, {"negative_slope": 0.1}]), (L.ELU, [{}, {"alpha": 0.5}]), (L.Softmax, [{}, {"axis": 1}, {"axis": -2}])]:
    each(cls.__name__, plain(cls, (4, 3, 5)), options)
each("PReLU", plain(L.PReLU, (4, 3, 2)), [{}, {"shared_axes": [1, 2]}, {"alpha_initializer": "ones"}, {"alpha_regularizer": L2(0.1)}, {"alpha_constraint": C.NonNeg()}])
each("Rescaling", plain(L.Rescaling, (4, 3, 2)), [{"scale": 0.5}, {"scale": 0.5, "offset": -1.0}, {"scale": [0.5, 2.0], "offset": [1.0, -1.0]}])
each("Normalization", plain(L.Normalization, (4, 3, 2)), [{"mean": 0.3, "variance": 2.0, "axis": None}, {"mean": [0.3, -1.0], "variance": [2.0, 0.5]},
    {"mean": [0.3, -1.0], "variance": [2.0, 0.5], "invert": True}, {"axis": 1, "mean": [0.1, 0.2, -0.3, 0.4], "variance": [0.5, 1.0, 2.0, 0.7]}, {}])
for cls in [L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum]:
    a, b = keras.Input((4, 3, 2), name="a"), keras.Input((4, 3, 2), name="b")
    case(cls.__name__, [], [a, b], cls(name="l")([a, b]))
    a, b = keras.Input((4, 3, 2), name="a"), keras.Input((1, 1, 2), name="b")
    case(cls.__name__, ["broadcast"], [a, b], cls(name="l")([a, b]))
    if cls is not L.Subtract:
        a, b, c = [keras.Input((4, 3), name=n) for n in "abc"]
        case(cls.__name__, ["three"], [a, b, c], cls(name="l")([a, b, c]))
for axis in [None, -1, 1, 2]:
    shapes = {1: [(2, 3, 2), (4, 3, 2)], 2: [(4, 1, 2), (4, 3, 2)]}.get(axis, [(4, 3, 1), (4, 3, 2)])
    a, b = [keras.Input(s, name=n) for s, n in zip(shapes, "ab")]
    case("Concatenate", [] if axis is None else ["axis"], [a, b], L.Concatenate(name="l", **({} if axis is None else {"axis": axis}))([a, b]))
for o in [{}, {"embeddings_initializer": "he_normal"}, {"embeddings_regularizer": L2(0.1)}, {"activity_regularizer": L1(0.1)}, {"embeddings_constraint": C.NonNeg()}]:
    x = keras.Input((7,), dtype="int32", name="x")
    case("Embedding", list(o) + ["input_dim", "output_dim"], x, L.Embedding(9, 4, name="l", **o)(x), integers=9)

recurrent = [{}, {"units": 4}, {"activation": "relu"}, {"activation": "linear"}, {"use_bias": False}, {"return_sequences": True}, {"go_backwards": True},
    {"go_backwards": True, "return_sequences": True}, {"dropout": 0.2}, {"kernel_initializer": "he_normal"}, {"recurrent_initializer": "glorot_uniform"},
    {"bias_initializer": "ones"}, {"kernel_regularizer": L2(0.02)}, {"recurrent_regularizer": L1(0.02)}, {"bias_regularizer": L2(0.02)},
    {"activity_regularizer": L2(0.02)}, {"kernel_constraint": C.MaxNorm(0.5)}, {"recurrent_constraint": C.UnitNorm()}, {"bias_constraint": C.NonNeg()},
    {"return_state": True}, {"return_state": True, "return_sequences": True}]
gated = [{"recurrent_activation": "hard_sigmoid"}]
for cls, options in [(L.SimpleRNN, recurrent), (L.LSTM, recurrent + gated + [{"unit_forget_bias": False}]),
                     (L.GRU, recurrent + gated + [{"reset_after": False}, {"reset_after": False, "return_sequences": True}])]:
    def make(**o):
        x = sequence()
        return x, cls(name="l", **{**{"units": 3}, **o})(x)

    each(cls.__name__, make, options)
for inner in [L.SimpleRNN, L.LSTM, L.GRU]:
    for mode in ["concat", "sum", "mul", "ave", None]:
        for sequences in [False, True]:
            x = sequence()
            y = L.Bidirectional(inner(3, name="r", return_sequences=sequences), merge_mode=mode, name="l")(x)
            case("Bidirectional", ["merge_mode", "return_sequences"] if sequences else ["merge_mode"], x, y)
x = keras.Input((4, 6), name="x")
case("TimeDistributed", ["Dense"], x, L.TimeDistributed(L.Dense(3, name="d", activation="relu"), name="l")(x))
x = keras.Input((3, 5, 4, 2), name="x")
case("TimeDistributed", ["Conv2D"], x, L.TimeDistributed(L.Conv2D(3, 3, name="d", padding="same"), name="l")(x))

# Models.
x = image(6, 5, 8)
y = L.GlobalAveragePooling2D(name="squeeze")(x)
y = L.Dense(2, activation="relu", name="reduce")(y)
y = L.Dense(8, activation="sigmoid", name="expand")(y)
case("models", ["squeeze-and-excitation"], x, L.Multiply(name="scale")([x, L.Reshape((1, 1, 8), name="reshape")(y)]))


def block(x, filters, strides, sizes, name):
    y = x
    for i, (f, k) in enumerate(sizes):
        y = L.Conv2D(f, k, strides=strides if i == len(sizes) // 2 else 1, padding="same", use_bias=False, name=f"{name}_c{i}")(y)
        y = L.BatchNormalization(name=f"{name}_b{i}")(y)
        y = L.Activation("relu", name=f"{name}_a{i}")(y) if i + 1 < len(sizes) else y
    if strides != 1 or x.shape[-1] != filters:
        x = L.Conv2D(filters, 1, strides=strides, name=f"{name}_p")(x)
    return L.Activation("relu", name=f"{name}_out")(L.Add(name=f"{name}_add")([x, y]))


for training in [False, True]:
    for option, args in [("residual block, identity", (4, 1, [(4, 3), (4, 3)])), ("residual block, projection", (6, 2, [(6, 3), (6, 3)])),
                         ("bottleneck", (8, 2, [(2, 1), (2, 3), (8, 1)]))]:
        x = image(6, 5, 4)
        case("models", [option], x, block(x, *args, "b"), training=training)
shared = L.Dense(3, activation="tanh", name="shared")
a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
case("models", ["shared layer", "two inputs", "two outputs"], [a, b], [L.Add(name="sum")([shared(a), shared(b)]), L.Concatenate(name="both")([shared(a), b])])
i = keras.Input((4, 4, 2), name="i")
inner = keras.Model(i, L.Conv2D(3, 3, name="c", activation="relu")(i), name="inner")
x = image(4, 4, 2)
case("models", ["submodel"], x, L.Flatten(name="f")(inner(x)))
case("models", ["submodel used twice"], x, L.Add(name="add")([inner(x), inner(L.Activation("relu", name="r")(x))]))
x = sequence()
y, h, c = L.LSTM(3, return_sequences=True, return_state=True, name="encoder")(x)
case("models", ["several results of a layer", "first states of a layer"], x, L.LSTM(3, name="decoder")(y, initial_state=[h, c]))
for training in [False, True]:
    x = image()
    case("models", ["normalisation before the activation"], x, L.Activation("relu", name="a")(L.BatchNormalization(name="b")(L.Conv2D(4, 3, name="c")(x))), training=training)
    x = image()
    case("models", ["normalisation after the activation"], x, L.BatchNormalization(name="b")(L.Conv2D(4, 3, activation="relu", name="c")(x)), training=training)
m = keras.Sequential([keras.Input((6, 5, 3), name="x"), L.Conv2D(4, 3, name="c"), L.Flatten(name="f"), L.Dense(2, name="d")], name="model")
case("models", ["sequential"], m.inputs, m.outputs)

class LocalResponseNormalization(L.Layer):
    """PyTorch's, which Keras has not, by its definition."""

    def __init__(self, size, alpha=1e-4, beta=0.75, bias=1.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def get_config(self):
        return {**super().get_config(), "size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}

    def call(self, x):
        squares = keras.ops.pad(keras.ops.square(x), [[0, 0]] * 3 + [[self.size // 2, (self.size - 1) // 2]])
        total = sum(squares[..., i : i + x.shape[-1]] for i in range(self.size))
        return x / (self.bias + self.alpha / self.size * total) ** self.beta


for options in [{}, {"alpha": 0.5}, {"beta": 0.5, "alpha": 0.3}, {"bias": 2.0, "alpha": 0.2}]:
    for size in (3, 5, 9):
        x = image(4, 5, 6)
        case("LocalResponseNormalization", ["size", *options], x, LocalResponseNormalization(size, **options, name="l")(x))
for scale in (0.17, 1.0):
    a, b = keras.Input((4, 5, 3), name="a"), keras.Input((4, 5, 3), name="b")
    case("CustomScaleLayer", ["scale"], [a, b], CustomScaleLayer(scale, name="l")([a, b]))

for cls, shape in [(L.SpatialDropout1D, (4, 3)), (L.SpatialDropout3D, (2, 3, 2, 2)), (L.GaussianDropout, (4, 3)), (L.AlphaDropout, (4, 3))]:
    each(cls.__name__, plain(cls, shape), [{"rate": 0.3}])
each("Identity", plain(L.Identity, (4, 3)), [{}])
for training in [False, True]:
    each("ActivityRegularization", plain(L.ActivityRegularization, (4, 3)), [{"l1": 0.02}, {"l2": 0.03}, {"l1": 0.01, "l2": 0.02}], training=training)
each("UnitNormalization", plain(L.UnitNormalization, (4, 3, 2)), [{}, {"axis": 1}, {"axis": (1, 3)}])
each("RMSNormalization", plain(L.RMSNormalization, (4, 3, 2)), [{}, {"axis": -1}, {"epsilon": 0.1}])
line = [{}, {"kernel_size": 2}, {"strides": 2}, {"padding": "same"}, {"padding": "same", "strides": 2}, {"dilation_rate": 2}, {"data_format": "channels_first"},
    {"activation": "tanh"}, {"use_bias": False}, {"bias_initializer": "ones"}]


def lined(cls, **base):
    def make(data_format="channels_last", **o):
        x = keras.Input((4, 9) if data_format == "channels_first" else (9, 4), name="x")
        args = {**base, "kernel_size": 3, **o}
        if data_format != "channels_last":
            args["data_format"] = data_format
        return x, cls(name="l", **args)(x)

    return make


each("DepthwiseConv1D", lined(L.DepthwiseConv1D), line + [{"depth_multiplier": 2}, {"depthwise_initializer": "lecun_uniform"}] + weights_options("depthwise", "bias"))
each("SeparableConv1D", lined(L.SeparableConv1D, filters=5), line + [{"filters": 3}, {"depth_multiplier": 2},
    {"depthwise_initializer": "he_uniform"}, {"pointwise_initializer": "orthogonal"}] + weights_options("depthwise", "pointwise", "bias"))
each("Conv1DTranspose", lined(L.Conv1DTranspose, filters=3), line + [{"filters": 5}, {"output_padding": 1, "strides": 2}, {"kernel_initializer": "he_normal"}]
    + weights_options("kernel", "bias"))
# Of some sizes, as 7 of 7, Keras on JAX rounds the end of a window past that of the axis.
for kind in ["Average", "Max"]:
    for shape, sizes in [((7, 3), [4, 1, 2]), ((6, 4, 3), [(3, 2), 1, 2]), ((7, 5, 2), [(4, 2), (4, 4)]), ((4, 3, 5, 2), [2, (2, 3, 5)])]:
        name = f"Adaptive{kind}Pooling{len(shape) - 1}D"
        options = [{"output_size": size} for size in sizes] + [{"output_size": 2, **CF}]
        each(name, plain(getattr(L, name), shape, (shape[-1], *shape[:-1])), options)
for o in [{"axes": 2}, {"axes": (1, 1)}, {"axes": (2, 2), "normalize": True}]:
    a, b = keras.Input((4, 5), name="a"), keras.Input((4, 5), name="b")
    case("Dot", list(o), [a, b], L.Dot(name="l", **o)([a, b]))
for o in [{"axes": 1}, {"axes": -1, "normalize": True}]:
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    case("Dot", list(o), [a, b], L.Dot(name="l", **o)([a, b]))
a, b = keras.Input((5,), name="a"), keras.Input((5, 3), name="b")
case("Dot", ["axes"], [a, b], L.Dot(1, name="l")([a, b]))
for cls, options in [(L.Attention, [{}, {"use_scale": True}, {"score_mode": "concat"}, {"score_mode": "concat", "use_scale": True}, {"dropout": 0.3}]),
                     (L.AdditiveAttention, [{}, {"use_scale": False}, {"dropout": 0.3}])]:
    for o in options:
        a, b = keras.Input((3, 4), name="a"), keras.Input((5, 4), name="b")
        case(cls.__name__, list(o), [a, b], cls(name="l", **o)([a, b]))
    a, b, c = keras.Input((3, 4), name="a"), keras.Input((5, 2), name="b"), keras.Input((5, 4), name="c")
    case(cls.__name__, ["key"], [a, b, c], cls(name="l")([a, b, c]))
for o in [{}, {"use_bias": False}, {"value_dim": 3}, {"output_shape": 3}, {"dropout": 0.2}, {"kernel_initializer": "he_normal"}, {"kernel_regularizer": L2(0.02)},
          {"bias_regularizer": L1(0.02)}, {"kernel_constraint": C.MaxNorm(0.7)}, {"bias_constraint": C.NonNeg()}]:
    a, b = keras.Input((3, 4), name="a"), keras.Input((5, 6), name="b")
    # Keras 3.15 computes a value_dim beside another key_dim in no backend but torch.
    dim = 3 if "value_dim" in o else 2
    case("MultiHeadAttention", ["num_heads", "key_dim", *o], [a, b], L.MultiHeadAttention(2, dim, name="l", **o)(a, b), scale=0.25)
for equation, shape, o in [("abc,cd->abd", (None, 3), {"bias_axes": "d"}), ("abc,cde->abde", (None, 2, 3), {"bias_axes": "de"}),
                           ("abcd,cde->abe", (None, 3), {"bias_axes": "e", "activation": "relu"}), ("abc,cd->abd", (None, 3), {"kernel_regularizer": L2(0.02)}),
                           ("...x,xy->...y", 3, {"bias_axes": "y"})]:
    x = keras.Input((4, 3, 2) if equation.startswith("abcd,") else (4, 5), name="x")
    case("EinsumDense", ["equation", "output_shape", *o], x, L.EinsumDense(equation, output_shape=shape, name="l", **o)(x))
for o in [{}, {"output_mode": "one_hot"}, {"output_mode": "count"}]:
    x = keras.Input((1,) if o.get("output_mode") == "one_hot" else (4,), dtype="int32", name="x")
    case("CategoryEncoding", ["num_tokens", *o], x, L.CategoryEncoding(5, name="l", **o)(x), integers=5)
for cell in [L.SimpleRNNCell, L.LSTMCell, L.GRUCell]:
    for o in [{}, {"return_sequences": True}, {"go_backwards": True}]:
        x = sequence()
        case("RNN", ["cell", *o], x, L.RNN(cell(3, name="c"), name="l", **o)(x))
for value, o in [(0.0, {}), (1.5, {"return_sequences": True}), (0.0, {"go_backwards": True, "return_sequences": True})]:
    x = sequence()
    # Steps without a number of at least 1 become zeros.
    y = L.Masking(value, name="l")(L.ReLU(name="r", threshold=1.0)(x))
    case("Masking", ["mask_value", *o], x, L.LSTM(3, name="m", **o)(y))
for o, layers in [({}, [L.GRU(3, name="m")]), ({}, [L.Bidirectional(L.SimpleRNN(3, name="r", return_sequences=True), name="m"), L.LSTM(2, name="n")]),
                  ({}, [L.Dense(3, name="m"), L.GlobalAveragePooling1D(name="n")])]:
    x = keras.Input((7,), dtype="int32", name="x")
    y = L.Embedding(4, 3, mask_zero=True, name="l")(x)
    for layer in layers:
        y = layer(y)
    case("Embedding", ["mask_zero"], x, y, integers=4)
x = sequence()
y, h, c = L.LSTM(3, return_sequences=True, return_state=True, zero_output_for_mask=True, name="m")(L.Masking(name="l")(L.ReLU(name="r", threshold=1.0)(x)))
case("LSTM", ["zero_output_for_mask"], x, [y, h, c])
for name, function in {"x / 255": lambda x: x / 255.0, "1 - x": lambda x: 1.0 - x, "x ** 2": lambda x: x**2, "x * x + x": lambda x: x * x + x,
                       "x[..., :2]": lambda x: x[..., :2], "x[:, 1, ::-1]": lambda x: x[:, 1, ::-1], "mean": lambda x: keras.ops.mean(x, axis=-1),
                       "softmax": lambda x: keras.ops.softmax(x, axis=1), "transpose": lambda x: keras.ops.transpose(x, (0, 3, 1, 2)),
                       "matmul": lambda x: keras.ops.matmul(x, keras.ops.swapaxes(x, -1, -2)), "std": lambda x: keras.ops.std(x, axis=[1, 2])}.items():
    x = image()
    case("models", [f"operation {name}"], x, function(x))
x = vector()
case("Dense", ["kernel_regularizer"], x, L.Dense(4, name="l", kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1))(x))
x = vector()
case("Dense", ["kernel_regularizer"], x, L.Dense(4, name="l", kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1, "columns"))(x))

each("Conv3DTranspose", plain(L.Conv3DTranspose, (3, 2, 4, 4), (4, 3, 2, 4), (3, 3)), [{}, {"strides": (2, 1, 2)}, V, {**V, "strides": 2}, CF,
    {**CF, **V, "strides": 2}, {"dilation_rate": 2}, {"activation": "relu"}, {"activation": "softmax"}, {"use_bias": False}, {"output_padding": 1, "strides": 2},
    {"output_padding": (1, 0, 1), "strides": 2, **V}, {"kernel_initializer": "he_normal"}, {"bias_initializer": "ones"}] + weights_options("kernel", "bias"))
each("Conv3DTranspose", plain(L.Conv3DTranspose, (3, 2, 4, 2), None), [{"filters": 3, "kernel_size": (1, 2, 3)}, {"filters": 2, "kernel_size": 2, "strides": 3}])
steps = [{}, {"strides": 2}, V, {**V, "strides": 2}, {"dilation_rate": 2}, CF, {"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}, {"use_bias": False},
    {"unit_forget_bias": False}, {"return_sequences": True}, {**CF, "return_sequences": True}, {"return_state": True}, {**CF, "return_state": True, "return_sequences": True},
    {"go_backwards": True}, {"dropout": 0.2}, {"recurrent_dropout": 0.2}, {"kernel_initializer": "he_normal"}, {"recurrent_initializer": "glorot_uniform"},
    {"bias_initializer": "ones"}, {"kernel_regularizer": L2(0.02)}, {"recurrent_regularizer": L1(0.02)}, {"bias_regularizer": L2(0.02)},
    {"activity_regularizer": L2(0.02)}, {"kernel_constraint": C.MaxNorm(0.5)}, {"recurrent_constraint": C.UnitNorm()}, {"bias_constraint": C.NonNeg()}]
each("ConvLSTM1D", plain(L.ConvLSTM1D, (3, 6, 2), (3, 2, 6), (2, 3)), steps)
each("ConvLSTM2D", plain(L.ConvLSTM2D, (3, 6, 5, 2), (3, 2, 6, 5), (2, (3, 2))), steps)
each("ConvLSTM3D", plain(L.ConvLSTM3D, (2, 5, 3, 4, 2), (2, 2, 5, 3, 4), (2, (3, 2, 2))), steps)
x = keras.Input((3, 5, 4, 2), name="x")
y, h, c = L.ConvLSTM2D(2, 3, padding="same", return_sequences=True, return_state=True, name="encoder")(x)
case("ConvLSTM2D", ["first states"], x, L.ConvLSTM2D(2, 3, padding="same", name="l")(y, initial_state=[h, c]))
for cls in [L.SimpleRNN, L.LSTM, L.GRU]:
    x = sequence()
    case(cls.__name__, ["recurrent_dropout"], x, cls(3, name="l", recurrent_dropout=0.2)(x))
for o in [{}, {"return_sequences": True}, {"go_backwards": True}, {"return_state": True}]:
    x = sequence()
    cells = [L.GRUCell(3, name="a"), L.LSTMCell(2, name="b"), L.SimpleRNNCell(4, name="c")]
    case("RNN", ["StackedRNNCells", *o], x, L.RNN(L.StackedRNNCells(cells, name="s"), name="l", **o)(x))
x = sequence()
y = L.Masking(name="l")(L.ReLU(name="r", threshold=1.0)(x))
case("Masking", ["StackedRNNCells"], x, L.RNN(L.StackedRNNCells([L.GRUCell(3, name="a"), L.LSTMCell(2, name="b")], name="s"), name="m")(y))
for scale in (0.5, 1e-2):
    x = image()
    case("LayerScale", ["init_values", "projection_dim"], x, LayerScale(scale, 3, name="l")(x))
x = image()
case("StochasticDepth", ["drop_path_rate"], x, StochasticDepth(0.3, name="l")(x))
for training in [False, True]:
    for o in [{}, {"power_iterations": 3}]:
        x = vector()
        case("SpectralNormalization", ["Dense", *o], x, L.SpectralNormalization(L.Dense(4, name="d"), name="l", **o)(x), training=training)
        x = image()
        case("SpectralNormalization", ["Conv2D", *o], x, L.SpectralNormalization(L.Conv2D(4, 3, name="d"), name="l", **o)(x), training=training)

for o in [{}, {"value_range": (0, 1)}]:
    x = image()
    case("AutoContrast", list(o), x, L.AutoContrast(name="l", **o)(x))
for o in [{}, {"sequence_stride": 3}, {"sequence_length": 9}, {"window": "hamming"}, {"window": None, "sequence_length": 12}, {"fft_length": 15}, {"sampling_rate": 80},
          {"num_mel_bins": 3}, {"min_freq": 1.0}, {"max_freq": 30}, {"power_to_db": False}, {"top_db": 12.0}, {"mag_exp": 1.0}, {"mag_exp": 1.5}, {"min_power": 0.5}, {"ref_power": 3.0}]:
    args = {"fft_length": 16, "sequence_stride": 5, "num_mel_bins": 5, "sampling_rate": 100, "min_freq": 4.0, **o}
    x = keras.Input((40,), name="x")
    case("MelSpectrogram", list(o), x, L.MelSpectrogram(name="l", **args)(x))
for o in [{}, {"mode": "magnitude"}, {"mode": "psd"}, {"mode": "real"}, {"mode": "imag"}, {"mode": "stft"}, {"frame_step": 3}, {"fft_length": 16}, {"window": "hamming"},
          {"periodic": True}, {"scaling": "spectrum"}, {"padding": "same"}, {"expand_dims": True}, CF, {**CF, "expand_dims": True}]:
    each("STFTSpectrogram", plain(lambda **o: L.STFTSpectrogram(frame_length=6, **o), (20, 2), (2, 20)), [o])
for equation in ["abcd,abed->abce", "abcd,aecd->abe", "abcd,acbd->acdb"]:
    x, y = image(4, 5, 3), keras.Input((5, 4, 3) if equation.startswith("abcd,acb") else (4, 5, 3), name="y")
    case("models", ["operation einsum"], [x, y], keras.ops.einsum(equation, x, y))

known = sorted({c.__name__ for c in vars(L).values() if isinstance(c, type) and issubclass(c, L.Layer) and not c.__name__.startswith("Base")})
(HERE / "keras_layers.json").write_text(json.dumps(known))
save_file(tensors, HERE / "layers.safetensors")
(HERE / "layers.json").write_text(json.dumps(cases, separators=(",", ":")))
print(len(cases), "cases,", sum(t.nbytes for t in tensors.values()), "bytes")

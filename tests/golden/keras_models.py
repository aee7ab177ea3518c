#!/usr/bin/env python3
"""Models as a course's students build them, saved in every format, with what Keras computes: tests/keras-files runs it.

    python tests/golden/keras_models.py FOLDER     # with keras==3.15.1 and jax, or with tensorflow-cpu==2.15.1

Each model goes to FOLDER as NAME.keras, NAME.h5 and NAME.weights.h5, with its inputs x0, … and outputs y0, … in
NAME.safetensors. A model of one input that trains without chance goes to FOLDER/steps as NAME.keras too, after a step
of SGD at the rate 0.05 on the mean squared differences from t0, … Of weights for arithmetic in 16 bits z0 is what they
give in 32. What Keras itself cannot write is left out and printed.
"""
import importlib
import json
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from safetensors.numpy import save_file

try:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    keras, VERSION = tf.keras, tf.__version__
except ImportError:
    tf = None
    import keras

    VERSION = keras.__version__
NEW = not VERSION.startswith("2")
L = keras.layers
FOLDER = pathlib.Path(sys.argv[1])
ONLY = sys.argv[2:]
MODELS = {}


def model(name, new=True, old=True):
    """Lists a function that makes a model, for Keras 3, for Keras 2 or for both."""

    def listed(build):
        if (NEW and new) or (not NEW and old):
            assert name not in MODELS, name
            MODELS[name] = build
        return build

    return listed


def one(name, shape, layer, new=True, old=True, dtype=None):
    """A model of an input and one layer."""

    @model(name, new, old)
    def build():
        x = keras.Input(shape, dtype=dtype)
        return keras.Model(x, layer()(x))


def images(layer, h=8, w=7, c=3):
    return (h, w, c), layer


# Layers with their options.
for i, options in enumerate([{}, {"strides": 2}, {"padding": "same"}, {"dilation_rate": 2}, {"groups": 3}, {"use_bias": False},
                             {"activation": "relu"}, {"activation": "softmax"}, {"kernel_regularizer": "l2"}]):
    one(f"conv2d_{i}", (8, 7, 3), lambda o=options: L.Conv2D(6, 3, **o))
    one(f"conv1d_{i}", (9, 3), lambda o=options: L.Conv1D(6, 3, **o))
one("conv1d_causal", (9, 3), lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2))
for i, options in enumerate([{}, {"strides": 2}, {"padding": "same", "strides": 2}, {"depth_multiplier": 2}, {"dilation_rate": 2}, {"use_bias": False}]):
    one(f"depthwise_conv2d_{i}", (8, 7, 3), lambda o=options: L.DepthwiseConv2D(3, **o))
    one(f"separable_conv2d_{i}", (8, 7, 3), lambda o=options: L.SeparableConv2D(5, 3, **o))
    one(f"depthwise_conv1d_{i}", (9, 3), lambda o=options: L.DepthwiseConv1D(3, **o))
    one(f"separable_conv1d_{i}", (9, 3), lambda o=options: L.SeparableConv1D(5, 3, **o))
for i, options in enumerate([{}, {"strides": 2}, {"padding": "same", "strides": 2}, {"output_padding": 1, "strides": 2}, {"use_bias": False}]):
    one(f"conv2d_transpose_{i}", (5, 4, 3), lambda o=options: L.Conv2DTranspose(4, 3, **o))
    one(f"conv1d_transpose_{i}", (5, 3), lambda o=options: L.Conv1DTranspose(4, 3, **o))
for i, options in enumerate([{}, {"axis": 1}, {"center": False}, {"scale": False}, {"momentum": 0.5, "epsilon": 0.1}]):
    one(f"batch_normalization_{i}", (5, 4, 3), lambda o=options: L.BatchNormalization(**o))
for i, options in enumerate([{}, {"axis": [1, 2]}, {"center": False, "epsilon": 0.1}]):
    one(f"layer_normalization_{i}", (5, 4, 3), lambda o=options: L.LayerNormalization(**o))
one("group_normalization", (5, 4, 6), lambda: L.GroupNormalization(groups=3))
one("unit_normalization", (5, 4, 6), lambda: L.UnitNormalization())
one("rms_normalization", (5, 6), lambda: L.RMSNormalization(), old=False)
one("normalization_given", (4,), lambda: L.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 2.0]))
one("rescaling", (4, 4, 3), lambda: L.Rescaling(1 / 127.5, offset=-1))
for name in ["relu", "relu6", "sigmoid", "tanh", "softmax", "softplus", "softsign", "selu", "elu", "exponential", "gelu", "swish", "hard_sigmoid",
             "leaky_relu", "linear", "mish"]:
    old = name not in ("relu6", "leaky_relu", "mish")
    one(f"activation_{name}", (4, 5), lambda n=name: L.Activation(n), old=old)
    one(f"dense_{name}", (5,), lambda n=name: L.Dense(4, activation=n), old=old)
for name in ["silu", "hard_silu", "log_softmax", "log_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "sparse_plus",
             "sparse_sigmoid", "squareplus", "celu", "glu", "sparsemax", "threshold"]:
    if name != "threshold":
        one(f"dense_{name}", (5,), lambda n=name: L.Dense(4, activation=n), old=False)
one("relu_options", (5,), lambda: L.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2))
one("leaky_relu", (5,), lambda: L.LeakyReLU())
one("leaky_relu_slope", (5,), lambda: L.LeakyReLU(0.05))
one("elu", (5,), lambda: L.ELU(0.5))
one("prelu", (4, 4, 3), lambda: L.PReLU(shared_axes=[1, 2]))
one("thresholded_relu", (5,), lambda: L.ThresholdedReLU(0.5), new=False)
one("softmax_axis", (4, 5, 3), lambda: L.Softmax(axis=1))
for name, options in [("relu_layer", {"max_value": 1.0}), ("leaky", None), ("elu_layer", None)]:
    layer = {"relu_layer": lambda: L.ReLU(max_value=1.0), "leaky": lambda: L.LeakyReLU(0.2), "elu_layer": lambda: L.ELU(0.7)}[name]
    one(f"dense_activation_{name}", (5,), lambda l=layer: L.Dense(4, activation=l()))
for i, options in enumerate([{}, {"pool_size": 3, "strides": 2}, {"padding": "same"}]):
    for name in ["MaxPooling2D", "AveragePooling2D"]:
        one(f"{name.lower()}_{i}", (8, 7, 3), lambda n=name, o=options: getattr(L, n)(**o))
    for name in ["MaxPooling1D", "AveragePooling1D"]:
        one(f"{name.lower()}_{i}", (9, 3), lambda n=name, o=options: getattr(L, n)(**o))
for name in ["GlobalAveragePooling2D", "GlobalMaxPooling2D"]:
    one(name.lower(), (5, 4, 3), lambda n=name: getattr(L, n)())
    one(name.lower() + "_keepdims", (5, 4, 3), lambda n=name: getattr(L, n)(keepdims=True))
for name in ["GlobalAveragePooling1D", "GlobalMaxPooling1D"]:
    one(name.lower(), (5, 3), lambda n=name: getattr(L, n)())
one("adaptive_average_pooling2d", (8, 6, 3), lambda: L.AdaptiveAveragePooling2D((4, 3)), old=False)
one("adaptive_average_pooling2d_uneven", (8, 7, 3), lambda: L.AdaptiveAveragePooling2D((3, 5)), old=False)
one("zero_padding2d", (5, 4, 3), lambda: L.ZeroPadding2D(((1, 2), (0, 3))))
one("cropping2d", (6, 5, 3), lambda: L.Cropping2D(((1, 2), (0, 1))))
one("zero_padding1d", (5, 3), lambda: L.ZeroPadding1D((1, 2)))
one("cropping1d", (6, 3), lambda: L.Cropping1D(1))
one("up_sampling2d", (3, 4, 2), lambda: L.UpSampling2D((2, 3)))
one("up_sampling2d_bilinear", (3, 4, 2), lambda: L.UpSampling2D(2, interpolation="bilinear"))
one("up_sampling1d", (3, 2), lambda: L.UpSampling1D(2))
one("resizing", (9, 8, 3), lambda: L.Resizing(5, 6))
one("center_crop", (9, 8, 3), lambda: L.CenterCrop(5, 6))
one("reshape", (6, 4), lambda: L.Reshape((2, -1, 3)))
one("permute", (6, 4), lambda: L.Permute((2, 1)))
one("repeat_vector", (4,), lambda: L.RepeatVector(3))
one("flatten", (3, 4, 2), lambda: L.Flatten())
for name in ["Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"]:
    one(name.lower(), (4, 4, 3), lambda n=name: getattr(L, n)(0.3))
one("spatialdropout1d", (4, 3), lambda: L.SpatialDropout1D(0.3))
one("activity_regularization", (4,), lambda: L.ActivityRegularization(0.01, 0.02))
one("identity", (4,), lambda: L.Identity())
for name, layer in [("flip", lambda: L.RandomFlip("horizontal")), ("rotation", lambda: L.RandomRotation(0.1)), ("zoom", lambda: L.RandomZoom(0.1)),
                    ("translation", lambda: L.RandomTranslation(0.1, 0.1)), ("contrast", lambda: L.RandomContrast(0.1)),
                    ("brightness", lambda: L.RandomBrightness(0.1)), ("crop", lambda: L.RandomCrop(6, 6)),
                    ("height", lambda: L.RandomHeight(0.1)), ("width", lambda: L.RandomWidth(0.1))]:
    one(f"random_{name}", (6, 6, 3), layer, new=name not in ("height", "width"))
for name in ["RandomHue", "RandomSaturation", "RandomColorJitter", "RandomGrayscale", "RandomInvert", "RandomGaussianBlur", "RandomShear",
             "RandomPerspective", "RandomErasing", "RandAugment", "RandomSharpness", "RandomPosterization", "Solarization", "Equalization", "AutoContrast"]:
    options = {"RandomHue": (0.1,), "RandomSaturation": (0.1,), "RandomShear": (0.1,), "RandomSharpness": (0.1,), "RandomPosterization": (4,)}
    one(name.lower(), (6, 6, 3), lambda n=name, o=options: getattr(L, n)(*o.get(n, ())), old=False)
for cell in ["SimpleRNN", "LSTM", "GRU"]:
    for i, options in enumerate([{}, {"return_sequences": True}, {"go_backwards": True}, {"activation": "relu"}, {"use_bias": False}, {"dropout": 0.2},
                                 {"recurrent_dropout": 0.2}, {"unroll": True}, {"stateful": False, "return_state": False}]):
        one(f"{cell.lower()}_{i}", (5, 3), lambda c=cell, o=options: getattr(L, c)(4, **o))
    for sigmoid in ["hard_sigmoid", "relu"]:
        if cell != "SimpleRNN":
            one(f"{cell.lower()}_{sigmoid}", (5, 3), lambda c=cell, s=sigmoid: getattr(L, c)(4, recurrent_activation=s))
    one(f"bidirectional_{cell.lower()}", (5, 3), lambda c=cell: L.Bidirectional(getattr(L, c)(4, return_sequences=True)))
    one(f"bidirectional_sum_{cell.lower()}", (5, 3), lambda c=cell: L.Bidirectional(getattr(L, c)(4), merge_mode="sum"))
one("gru_reset_before", (5, 3), lambda: L.GRU(4, reset_after=False))
one("rnn_of_a_cell", (5, 3), lambda: L.RNN(L.LSTMCell(4)))
one("rnn_of_stacked_cells", (5, 3), lambda: L.RNN([L.GRUCell(4), L.LSTMCell(3)]))
one("rnn_of_stacked_cells_sequences", (5, 3), lambda: L.RNN([L.LSTMCell(4), L.SimpleRNNCell(3)], return_sequences=True, go_backwards=True))
one("rnn_of_stacked_cells_states", (5, 3), lambda: L.RNN([L.GRUCell(4), L.LSTMCell(3)], return_state=True))
one("conv_lstm2d", (3, 6, 6, 2), lambda: L.ConvLSTM2D(3, 3))
one("conv_lstm2d_options", (3, 6, 6, 2), lambda: L.ConvLSTM2D(3, 3, strides=2, padding="same", return_sequences=True, go_backwards=True,
                                                               recurrent_activation="hard_sigmoid", unit_forget_bias=False))
one("conv_lstm2d_dropout", (3, 6, 6, 2), lambda: L.ConvLSTM2D(2, 3, dilation_rate=2, dropout=0.2, recurrent_dropout=0.1))
one("conv_lstm3d", (3, 4, 5, 4, 2), lambda: L.ConvLSTM3D(3, 2, padding="same", return_sequences=True))
one("conv_lstm1d", (3, 7, 2), lambda: L.ConvLSTM1D(3, 3, return_sequences=True))
for i, options in enumerate([{}, {"strides": 2}, {"padding": "same", "strides": 2}, {"output_padding": 1, "strides": 2}, {"use_bias": False}]):
    one(f"conv3d_transpose_{i}", (3, 4, 2, 3), lambda o=options: L.Conv3DTranspose(4, 3, **o))
one("integer_lookup", (4,), lambda: L.IntegerLookup(vocabulary=[1, 3, 5]), dtype="int32")
one("integer_lookup_masked", (4,), lambda: L.IntegerLookup(vocabulary=[4, 1, 3, 5, 2], mask_token=0, num_oov_indices=0), dtype="int32")
one("integer_lookup_hot", (4,), lambda: L.IntegerLookup(vocabulary=[4, 0, 1, 3, 5, 2], num_oov_indices=0, output_mode="multi_hot"), dtype="int32")
one("integer_lookup_counts", (4,), lambda: L.IntegerLookup(vocabulary=[1, 3, 5], output_mode="count"), dtype="int32")
one("stft_spectrogram", (64, 1), lambda: L.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16), old=False)
one("stft_spectrogram_log", (64, 1), lambda: L.STFTSpectrogram(mode="log", frame_length=12, frame_step=5, fft_length=16, padding="same"), old=False)
one("mel_spectrogram", (64,), lambda: L.MelSpectrogram(fft_length=16, sequence_stride=8, num_mel_bins=6, sampling_rate=100, max_freq=50), old=False)
# On JAX, Keras 3.15 rounds the ends of 7 and of 13 windows past those of the axis.
one("mel_spectrogram_options", (64,), lambda: L.MelSpectrogram(fft_length=32, sequence_length=20, sequence_stride=7, window=None, num_mel_bins=4, sampling_rate=100,
                                                               min_freq=1.0, power_to_db=False, mag_exp=1.0), old=False)
for name, shape, size in [("AveragePooling1D", (11, 3), 4), ("MaxPooling1D", (7, 3), 4), ("MaxPooling2D", (7, 6, 2), (4, 5)), ("AveragePooling3D", (4, 5, 6, 2), (2, 3, 4)),
                          ("MaxPooling3D", (4, 5, 6, 2), (3, 4, 2))]:
    one(f"adaptive_{name.lower()}", shape, lambda n=name, s=size: getattr(L, "Adaptive" + n)(s), old=False)
one("conv3d", (4, 5, 6, 2), lambda: L.Conv3D(3, 2))
one("max_pooling3d", (4, 6, 6, 2), lambda: L.MaxPooling3D(2))
one("time_distributed_dense", (4, 5), lambda: L.TimeDistributed(L.Dense(3)))
one("time_distributed_conv", (3, 6, 6, 2), lambda: L.TimeDistributed(L.Conv2D(3, 3)))
one("embedding", (6,), lambda: L.Embedding(20, 4), dtype="int32")
one("einsum_dense", (4, 5), lambda: L.EinsumDense("abc,cd->abd", output_shape=(4, 6), bias_axes="d"), old=False)
one("spectral_normalization", (5,), lambda: L.SpectralNormalization(L.Dense(4)), old=False)
one("spectral_normalization_conv", (6, 6, 2), lambda: L.SpectralNormalization(L.Conv2D(3, 3), power_iterations=2), old=False)
one("lambda", (4,), lambda: L.Lambda(lambda x: x * 2))
one("category_encoding", (1,), lambda: L.CategoryEncoding(6, output_mode="one_hot"), dtype="int32")
one("discretization", (3,), lambda: L.Discretization(bin_boundaries=[-1.0, 0.0, 1.0]))


def two(name, layer, new=True, old=True, a=(4, 5), b=(4, 5)):
    """A model of two inputs that a layer merges."""

    @model(name, new, old)
    def build():
        x, y = keras.Input(a, name="a"), keras.Input(b, name="b")
        return keras.Model([x, y], layer()([x, y]))


for name in ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"]:
    two(f"merge_{name.lower()}", lambda n=name: getattr(L, n)())
two("concatenate_axis", lambda: L.Concatenate(axis=1))
two("dot", lambda: L.Dot(axes=2))
two("dot_vectors", lambda: L.Dot(axes=-1), a=(5,), b=(5,))
two("dot_cosine", lambda: L.Dot(axes=1, normalize=True), a=(5,), b=(5,))
two("attention", lambda: L.Attention())
two("attention_scaled", lambda: L.Attention(use_scale=True))
two("additive_attention", lambda: L.AdditiveAttention())


@model("multi_head_attention")
def _():
    x = keras.Input((5, 8))
    return keras.Model(x, L.MultiHeadAttention(2, 4)(x, x))


@model("multi_head_attention_values")
def _():
    x, y = keras.Input((5, 8)), keras.Input((4, 6))
    return keras.Model([x, y], L.MultiHeadAttention(2, 3, value_dim=5)(x, y))


# Arithmetic on tensors.
def arithmetic(name, function, shape=(6, 5, 4), new=True, old=True):
    @model(f"op_{name}", new, old)
    def build():
        x = keras.Input(shape)
        y = L.Dense(4, name="before")(x)
        return keras.Model(x, L.Flatten()(function(y)))


for name, function in {
    "add": lambda x: x + 1.5, "radd": lambda x: 1.5 + x, "sub": lambda x: x - 0.5, "rsub": lambda x: 1.0 - x, "mul": lambda x: x * 2.0,
    "rmul": lambda x: 2.0 * x, "div": lambda x: x / 255.0, "rdiv": lambda x: 1.0 / (x * x + 1.0), "neg": lambda x: -x, "pow": lambda x: x**2,
    "pow3": lambda x: x**3, "tensors": lambda x: x * x + x, "same": lambda x: x - x * 0.5, "getitem": lambda x: x[..., :2],
    "getitem_index": lambda x: x[:, 0], "getitem_reverse": lambda x: x[..., ::-1], "getitem_step": lambda x: x[:, 1:5:2, 1:],
    "getitem_new": lambda x: x[:, :, None, :, 0], "floordiv": lambda x: x // 0.3, "mod": lambda x: x % 0.7, "abs": lambda x: abs(x),
}.items():
    arithmetic(name, function)
if NEW:
    from keras import ops

    for name, function in {
        "mean": lambda x: ops.mean(x, axis=-1, keepdims=True), "mean_axes": lambda x: ops.mean(x, axis=[1, 2]), "sum": lambda x: ops.sum(x, axis=1),
        "max": lambda x: ops.max(x, axis=-1), "min": lambda x: ops.min(x, axis=2), "prod": lambda x: ops.prod(x, axis=-1),
        "var": lambda x: ops.var(x, axis=-1), "std": lambda x: ops.std(x, axis=[1, 2], keepdims=True), "reshape": lambda x: ops.reshape(x, (-1, 30, 4)),
        "reshape_open": lambda x: ops.reshape(x, (-1, 10, 12)), "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
        "concatenate": lambda x: ops.concatenate([x, x * 2], axis=-1), "stack": lambda x: ops.stack([x, -x], axis=1),
        "split": lambda x: ops.split(x, 2, axis=-1)[1], "split_at": lambda x: ops.split(x, [1, 3], axis=-1)[1], "softmax": lambda x: ops.softmax(x),
        "softmax_axis": lambda x: ops.softmax(x, axis=1), "relu": ops.relu, "relu6": ops.relu6, "leaky_relu": lambda x: ops.leaky_relu(x, 0.1),
        "silu": ops.silu, "gelu": ops.gelu, "gelu_exact": lambda x: ops.gelu(x, approximate=False), "elu": ops.elu, "selu": ops.selu,
        "sigmoid": ops.sigmoid, "tanh": ops.tanh, "softplus": ops.softplus, "hard_sigmoid": ops.hard_sigmoid, "hard_silu": ops.hard_silu,
        "log_softmax": ops.log_softmax, "log_sigmoid": ops.log_sigmoid, "softsign": ops.softsign, "cast": lambda x: ops.cast(x, "float32") * 2,
        "cast_int": lambda x: ops.cast(ops.cast(x * 3, "int32"), "float32"), "expand": lambda x: ops.expand_dims(x, -1),
        "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1), "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
        "clip": lambda x: ops.clip(x, -0.5, 0.7), "absolute": ops.abs, "exp": ops.exp, "log": lambda x: ops.log(ops.square(x) + 1.0),
        "log1p": lambda x: ops.log1p(ops.square(x)), "sqrt": lambda x: ops.sqrt(ops.abs(x)), "rsqrt": lambda x: ops.rsqrt(ops.square(x) + 1.0),
        "square": ops.square, "maximum": lambda x: ops.maximum(x, 0.2), "minimum": lambda x: ops.minimum(x, x * 2), "sign": ops.sign,
        "sin": ops.sin, "cos": ops.cos, "floor": ops.floor, "round": ops.round, "where": lambda x: ops.where(x > 0.1, x, -1.0),
        "greater": lambda x: ops.cast(x > 0, "float32"), "equal": lambda x: ops.cast(ops.equal(ops.sign(x), 1.0), "float32"),
        "flip": lambda x: ops.flip(x, axis=1), "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 0], [0, 1]]), "repeat": lambda x: ops.repeat(x, 2, axis=1),
        "tile": lambda x: ops.tile(x, [1, 1, 2, 1]), "swapaxes": lambda x: ops.swapaxes(x, 1, 2), "moveaxis": lambda x: ops.moveaxis(x, 1, -1),
        "logsumexp": lambda x: ops.logsumexp(x, axis=-1), "normalize": lambda x: ops.normalize(x, axis=-1), "erf": ops.erf,
        "constant": lambda x: x * np.array([1.0, 2.0, 3.0, 4.0], "float32"), "argmax": lambda x: ops.cast(ops.argmax(x, axis=-1), "float32"),
        "one_hot": lambda x: ops.one_hot(ops.cast(ops.round(ops.abs(x[..., 0])), "int32"), 4), "cumsum": lambda x: ops.cumsum(x, axis=1),
        "image_resize": lambda x: ops.image.resize(x, (3, 4)), "max_pool": lambda x: ops.max_pool(x, 2), "einsum": lambda x: ops.einsum("abcd,abed->abce", x, x),
        "broadcast_to": lambda x: ops.broadcast_to(x[:, :, :, :1], (2, 6, 5, 4)), "ones_like": lambda x: ops.ones_like(x) * x, "swish": keras.activations.swish,
        "function_relu": lambda x: keras.activations.relu(x, negative_slope=0.1, max_value=1.0), "depth_to_space": lambda x: ops.nn.depth_to_space(x, 2) if hasattr(ops.nn, "depth_to_space") else x * 1,
    }.items():
        arithmetic(f"ops_{name}", function, old=False)
else:
    for name, function in {
        "reduce_mean": lambda x: tf.reduce_mean(x, axis=-1, keepdims=True), "reduce_sum": lambda x: tf.reduce_sum(x, [1, 2]), "relu": tf.nn.relu,
        "reduce_max": lambda x: tf.math.reduce_max(x, axis=1), "leaky_relu": lambda x: tf.nn.leaky_relu(x, alpha=0.1), "softmax": tf.nn.softmax,
        "sigmoid": tf.sigmoid, "tanh": tf.tanh, "exp": tf.exp, "abs": tf.abs, "square": tf.square, "sqrt": lambda x: tf.sqrt(tf.abs(x)),
        "concat": lambda x: tf.concat([x, x * 2.0], axis=-1), "stack": lambda x: tf.stack([x, x], axis=1), "split": lambda x: tf.split(x, 2, axis=-1)[1],
        "split_sizes": lambda x: tf.split(x, [1, 3], axis=-1)[1], "reshape": lambda x: tf.reshape(x, (-1, 30, 4)), "transpose": lambda x: tf.transpose(x, (0, 3, 1, 2)),
        "expand": lambda x: tf.expand_dims(x, -1), "squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 1), axis=1), "cast": lambda x: tf.cast(x, tf.float32),
        "clip": lambda x: tf.clip_by_value(x, -0.5, 0.7), "matmul": lambda x: tf.matmul(x, x, transpose_b=True), "maximum": lambda x: tf.maximum(x, 0.2),
        "l2_normalize": lambda x: tf.math.l2_normalize(x, axis=-1), "resize": lambda x: tf.image.resize(x, (3, 4)), "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 0], [0, 1]]),
        "tile": lambda x: tf.tile(x, [1, 1, 2, 1]), "reverse": lambda x: tf.reverse(x, axis=[1]), "subtract": lambda x: tf.subtract(x, 0.5), "gelu": tf.nn.gelu,
        "swish": keras.activations.swish, "k_mean": lambda x: keras.backend.mean(x, axis=-1), "function_relu": lambda x: keras.activations.relu(x, alpha=0.1, max_value=1.0),
        "constant": lambda x: x * tf.constant([1.0, 2.0, 3.0, 4.0]), "depth_to_space": lambda x: tf.nn.depth_to_space(x[:, :, :, :], 2), "silu": tf.nn.silu,
        "log_softmax": tf.nn.log_softmax, "where": lambda x: tf.where(x > 0.0, x, x * 0.1), "elu": tf.nn.elu, "hard_sigmoid": keras.activations.hard_sigmoid,
    }.items():
        arithmetic(f"tf_{name}", function, new=False)


# Patterns of lessons.
@model("mnist_sequential")
def _():
    return keras.Sequential([keras.Input((12, 12, 1)), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5), L.Dense(10, activation="softmax")])


@model("sequential_input_shape")
def _():
    return keras.Sequential([L.Conv2D(4, 3, activation="relu", input_shape=(12, 12, 1)), L.BatchNormalization(), L.MaxPooling2D(), L.Flatten(), L.Dense(3)])


@model("sequential_built_later")
def _():
    m = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
    m.build((None, 5))
    return m


@model("trained")
def _():
    m = keras.Sequential([keras.Input((6,)), L.Dense(5, activation="relu"), L.BatchNormalization(), L.Dense(3, activation="softmax")])
    m.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    m.fit(np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3, verbose=0)
    return m


def base(shape=(12, 12, 3), name="base"):
    x = keras.Input(shape)
    y = L.Conv2D(4, 3, padding="same", use_bias=False)(x)
    y = L.Activation("relu")(L.BatchNormalization()(y))
    return keras.Model(x, L.Conv2D(4, 3)(y), name=name)


def augmentation():
    return keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.1)], name="augmentation")


@model("transfer_functional")
def _():
    x, b = keras.Input((12, 12, 3)), base()
    b.trainable = False
    y = b(L.Rescaling(1 / 127.5, offset=-1)(augmentation()(x)), training=False)
    return keras.Model(x, L.Dense(2)(L.Dropout(0.2)(L.GlobalAveragePooling2D()(y))))


@model("transfer_sequential")
def _():
    b = base()
    b.trainable = False
    return keras.Sequential([keras.Input((12, 12, 3)), augmentation(), L.Rescaling(1 / 255), b, L.GlobalAveragePooling2D(), L.Dense(3)])


@model("transfer_fine_tuned")
def _():
    b = base()
    for layer in b.layers[:3]:
        layer.trainable = False
    return keras.Sequential([keras.Input((12, 12, 3)), b, L.Flatten(), L.Dense(3)])


@model("transfer_base_first")
def _():
    return keras.Sequential([base(), L.GlobalAveragePooling2D(), L.Dense(3)])


@model("base_of_open_size")
def _():
    x = keras.Input((12, 12, 3))
    return keras.Model(x, L.GlobalMaxPooling2D()(base((None, None, 3))(x)))


@model("fully_convolutional")
def _():
    return base((None, None, 3))


@model("nested_sequential_first")
def _():
    x = keras.Input((6,))
    a = keras.Sequential([keras.Input((6,)), L.Dense(6, activation="tanh")], name="first")
    i = keras.Input((6,))
    b = keras.Model(i, L.Dense(6)(i), name="second")
    c = keras.Sequential([L.Dense(6, activation="relu")], name="third")
    return keras.Model(x, c(b(a(x))))


@model("nested_in_nested")
def _():
    i = keras.Input((6,))
    inner = keras.Model(i, L.Dense(6)(i), name="inner")
    j = keras.Input((6,))
    outer = keras.Model(j, keras.Sequential([L.Dense(6), L.Dense(6, activation="tanh")], name="chain")(inner(j)), name="outer")
    return keras.Sequential([keras.Input((6,)), outer, L.Dense(2)])


@model("autoencoder")
def _():
    i = keras.Input((8, 8, 1))
    encoder = keras.Model(i, L.Conv2D(3, 3, strides=2, padding="same")(i), name="encoder")
    j = keras.Input((4, 4, 3))
    decoder = keras.Model(j, L.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")(j), name="decoder")
    x = keras.Input((8, 8, 1))
    return keras.Model(x, decoder(encoder(x)), name="autoencoder")


@model("siamese")
def _():
    a, b = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    tower = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(3, 3), L.Flatten(), L.Dense(4)], name="tower")
    return keras.Model([a, b], L.Dense(1, activation="sigmoid")(L.Subtract()([tower(a), tower(b)])))


@model("siamese_functional_distance")
def _():
    a, b = keras.Input((6,)), keras.Input((6,))
    i = keras.Input((6,))
    tower = keras.Model(i, L.Dense(4)(i), name="tower")
    return keras.Model([a, b], [L.Dot(axes=1)([tower(a), tower(b)]), tower(a), tower(b)])


@model("shared_used_backwards")
def _():
    i = keras.Input((4,))
    e = keras.Model(i, L.Dense(4)(i), name="e")
    x = keras.Input((4,))
    first = e(x)
    second = e(L.ReLU()(first))
    return keras.Model(x, [second, L.Add()([first, second])])


@model("nested_made_before")
def _():
    i = keras.Input((4,))
    e = keras.Model(i, L.Dense(4)(i), name="e")
    other = keras.Input((4,))
    e(other)
    x = keras.Input((4,))
    return keras.Model(x, [L.ReLU()(e(x)), e(L.ReLU()(x))])


@model("shared_sequential_output")
def _():
    s = keras.Sequential([keras.Input((4,)), L.Dense(4)], name="s")
    x = keras.Input((4,))
    first = s(x)
    return keras.Model(x, [first, s(first)])


@model("dict_inputs", old=False)
def _():
    inputs = {"z": keras.Input((4,), name="z"), "a": keras.Input((3,), name="a")}
    return keras.Model(inputs, {"second": L.Dense(2)(inputs["z"]), "first": L.Dense(3)(inputs["a"])})


@model("residual")
def _():
    x = keras.Input((8, 8, 4))
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    y = L.Activation("relu")(L.add([x, y]))
    z = L.Concatenate()([y, L.MaxPooling2D(3, 1, "same")(y)])
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(z)))


@model("unet")
def _():
    x = keras.Input((8, 8, 1))
    a = L.Conv2D(3, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(4, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2DTranspose(3, 2, strides=2)(b)
    return keras.Model(x, L.Conv2D(2, 1, activation="softmax")(L.concatenate([a, c])))


@model("squeeze_and_excitation")
def _():
    x = keras.Input((6, 6, 4))
    y = L.Dense(4, activation="sigmoid")(L.Dense(2, activation="relu")(L.GlobalAveragePooling2D()(x)))
    return keras.Model(x, x * L.Reshape((1, 1, 4))(y))


@model("text_lstm")
def _():
    return keras.Sequential([keras.Input((7,), dtype="int32"), L.Embedding(20, 5), L.LSTM(4), L.Dense(1, activation="sigmoid")])


@model("text_mask")
def _():
    return keras.Sequential([keras.Input((7,), dtype="int32"), L.Embedding(20, 5, mask_zero=True), L.LSTM(4), L.Dense(1, activation="sigmoid")])


@model("text_mask_bidirectional")
def _():
    return keras.Sequential([keras.Input((7,), dtype="int32"), L.Embedding(20, 5, mask_zero=True), L.Bidirectional(L.GRU(4, return_sequences=True)),
                             L.LayerNormalization(), L.SimpleRNN(3), L.Dense(1)])


@model("text_mask_mean")
def _():
    return keras.Sequential([keras.Input((7,), dtype="int32"), L.Embedding(20, 5, mask_zero=True), L.Dense(4), L.GlobalAveragePooling1D(), L.Dense(1)])


@model("text_input_length")
def _():
    return keras.Sequential([L.Embedding(20, 5, **({} if NEW else {"input_length": 7})), L.Flatten(), L.Dense(1)] if not NEW
                            else [keras.Input((7,)), L.Embedding(20, 5), L.Flatten(), L.Dense(1)])


@model("masking_lstm")
def _():
    return keras.Sequential([keras.Input((7, 3)), L.Masking(0.0), L.LSTM(4, return_sequences=True), L.GRU(3, go_backwards=True)])


@model("encoder_decoder")
def _():
    a, b = keras.Input((5, 3)), keras.Input((4, 3))
    _, h, c = L.LSTM(4, return_state=True)(a)
    return keras.Model([a, b], L.Dense(2)(L.LSTM(4, return_sequences=True)(b, initial_state=[h, c])))


@model("video")
def _():
    cnn = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(3, 3, activation="relu"), L.BatchNormalization(), L.Flatten(), L.Dense(4)], name="cnn")
    x = keras.Input((3, 8, 8, 1))
    return keras.Model(x, L.LSTM(3)(L.TimeDistributed(cnn)(x)))


@model("video_functional")
def _():
    x = keras.Input((3, 12, 12, 3))
    return keras.Model(x, L.GlobalAveragePooling1D()(L.TimeDistributed(L.Flatten())(L.TimeDistributed(base())(x))))


@model("several_outputs")
def _():
    x = keras.Input((6,), name="x")
    y = L.Dense(5, activation="relu")(x)
    return keras.Model(x, [L.Dense(3, activation="softmax", name="kind")(y), L.Dense(1, name="size")(y)])


@model("unused_input")
def _():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    return keras.Model([a, b], L.Dense(2)(a))


@model("layer_used_twice")
def _():
    d = L.Dense(4, activation="tanh")
    x = keras.Input((4,))
    return keras.Model(x, d(d(x)))


@model("preprocess_mobilenet")
def _():
    x = keras.Input((6, 6, 3))
    return keras.Model(x, L.Conv2D(2, 3)(keras.applications.mobilenet_v2.preprocess_input(x)))


@model("preprocess_resnet")
def _():
    x = keras.Input((6, 6, 3))
    return keras.Model(x, L.Conv2D(2, 3)(keras.applications.resnet50.preprocess_input(x)))


@model("preprocess_densenet")
def _():
    x = keras.Input((6, 6, 3))
    return keras.Model(x, L.Conv2D(2, 3)(keras.applications.densenet.preprocess_input(x)))


@model("preprocess_in_the_middle")
def _():
    x, b = keras.Input((12, 12, 3)), base()
    y = keras.applications.mobilenet_v2.preprocess_input(augmentation()(x))
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(b(y, training=False))))


@model("mobilenet_v2_small")
def _():
    return keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=3)


@model("convnext_small")
def _():
    convnext = importlib.import_module("keras.src.applications.convnext")
    return convnext.ConvNeXt(depths=[1, 1, 1, 1], projection_dims=[4, 6, 6, 8], drop_path_rate=0.1, default_size=64, input_shape=(64, 64, 3), weights=None,
                             classes=3)


@model("densenet_names")
def _():
    return keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(3, 3, name="block1_conv" if NEW else "block1/conv"),
                             L.BatchNormalization(name="block1_bn" if NEW else "block1/bn"), L.Flatten(), L.Dense(2, name="head")])


@model("regularized")
def _():
    r = keras.regularizers
    return keras.Sequential([keras.Input((6,)), L.Dense(5, kernel_regularizer=r.L1L2(0.01, 0.02), kernel_constraint=keras.constraints.MaxNorm(2)),
                             L.Dense(4, kernel_regularizer=r.OrthogonalRegularizer(), kernel_initializer="orthogonal"),
                             L.Dense(4, kernel_initializer=keras.initializers.Identity()), L.Dense(2, kernel_initializer=keras.initializers.VarianceScaling(2.0))])


@model("patches_transformer")
def _():
    x = keras.Input((8, 8, 3))
    y = L.Reshape((16, 6))(L.Conv2D(6, 2, strides=2)(x))
    y = L.Add()([y, L.MultiHeadAttention(2, 3)(L.LayerNormalization()(y), L.LayerNormalization()(y))])
    y = L.Dense(6)(L.Dense(12, activation="gelu")(L.LayerNormalization()(y)))
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling1D()(y)))


for policy in ["mixed_float16", "mixed_bfloat16", "float64"]:
    @model(f"policy_{policy}", new=policy != "float64")
    def _(policy=policy):
        (keras.mixed_precision.set_global_policy if not NEW else keras.config.set_dtype_policy)(policy)
        m = keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(3, 3), L.BatchNormalization(), L.Flatten(), L.Dense(2, dtype="float32")])
        (keras.mixed_precision.set_global_policy if not NEW else keras.config.set_dtype_policy)("float32")
        return m


def flat(tensors):
    if isinstance(tensors, (list, tuple)):
        return [part for tensor in tensors for part in flat(tensor)]
    return list(tensors.values()) if isinstance(tensors, dict) else [tensors]


def in_bits(m, policy, other):
    """The same model and weights under another policy."""
    config = m.get_config()
    if policy != other:
        config = json.loads(json.dumps(config).replace(f'"{policy}"', f'"{other}"'))
    copy = m.__class__.from_config(config)
    copy.set_weights(m.get_weights())
    return copy


# Deep networks have weights that keep the size of what goes through, this many samples, since of two samples of one pixel
# batch statistics leave signs alone, and a step in 64 bits: rounding in 32 leads some value to the other side of a kink.
DEEP = {"mobilenet_v2_small": 4}
CHANCE = ("Dropout", "Random", "Noise", "MixUp", "CutMix", "AugMix", "RandAugment", "Solarization", "AutoContrast", "Equalization", "StochasticDepth")


def trains(m):
    """Whether a step of training is one function of the weights and the samples, in 32-bit numbers."""
    layers = m._flatten_layers()
    random = any(c in type(l).__name__ or getattr(l, "dropout", 0) or getattr(l, "recurrent_dropout", 0) for l in layers for c in CHANCE)
    return len(flat(m.inputs)) == 1 and m.trainable_weights and not random and not isinstance(getattr(m, "output", None), dict)


def step(m, name, x, ys, rng):
    """Saves the model after a step of training, and returns what the outputs were compared with."""
    ts = [rng.normal(0, 1, y.shape).astype("float32") for y in ys]
    dtype = "float64" if name in DEEP else "float32"
    if NEW:
        importlib.import_module("jax").config.update("jax_enable_x64", name in DEEP)
    copy = in_bits(m, "float32", dtype)
    copy.compile(keras.optimizers.SGD(0.05), ["mse"] * len(ts))
    x, targets = x.astype(dtype) if name in DEEP else x, [t.astype(dtype) for t in ts]
    copy.train_on_batch(x, targets[0] if len(ts) == 1 else targets)
    if NEW:
        importlib.import_module("jax").config.update("jax_enable_x64", False)
    in_bits(copy, dtype, "float32").save(str(FOLDER / "steps" / f"{name}.keras"))
    return ts


(FOLDER / "steps").mkdir(parents=True, exist_ok=True)
made, stepped = 0, 0
for name, build in MODELS.items():
    if ONLY and name not in ONLY:
        continue
    keras.backend.clear_session()
    try:
        m = build()
    except Exception as e:
        print(f"{name}: Keras {VERSION} does not make it: {str(e)[:150]!r}", file=sys.stderr)
        continue
    rng = np.random.default_rng(sum(map(ord, name)))
    for w in m.weights:
        path = getattr(w, "path", w.name)
        if "seed" in path or "count" in path or "int" in str(w.dtype):
            continue
        fan_in = np.prod(w.shape[:2] if "depthwise" in path else w.shape[:-1])
        value = rng.normal(0, (2 / fan_in) ** 0.5 if name in DEEP and len(w.shape) > 1 else 0.4, w.shape)
        w.assign(np.abs(value) + 0.5 if "variance" in path or "gamma" in path else value)
    embedded = any("Embedding" in type(l).__name__ for l in m.layers)
    xs = []
    for x in flat(m.inputs):
        shape = (DEEP.get(name, 2), *(9 if d is None else d for d in x.shape[1:]))
        integers = embedded or "int" in str(x.dtype)
        # Half of the numbers are 0, which masks.
        values = rng.integers(0, 6 if not embedded else 20, shape) * rng.integers(0, 2, shape) if integers else 1.5 * rng.normal(0, 1, shape)
        if "masking" in name:
            values = values * (rng.integers(0, 2, shape[:2]) > 0)[..., None]
        xs.append(values.astype("int32" if "int" in str(x.dtype) else "float32"))
    keys = list(m.input) if isinstance(getattr(m, "input", None), dict) else None
    try:
        ys = flat(m.predict(dict(zip(keys, xs)) if keys else xs[0] if len(xs) == 1 else xs, verbose=0))
    except Exception as e:
        print(f"{name}: Keras {VERSION} does not run it: {str(e)[:150]!r}", file=sys.stderr)
        continue
    if keys:
        xs = [xs[keys.index(k)] for k in sorted(keys)]
        ys = [y for _, y in sorted(zip(list(m.output), ys))] if isinstance(m.output, dict) else ys
    tensors = {f"x{i}": x for i, x in enumerate(xs)} | {f"y{i}": np.ascontiguousarray(np.asarray(y, "float32")) for i, y in enumerate(ys)}
    if name.startswith("policy_mixed"):
        tensors["z0"] = np.asarray(in_bits(m, name.removeprefix("policy_"), "float32").predict(xs[0], verbose=0))
    for suffix, save in [(".keras", m.save), (".h5", m.save), (".weights.h5", m.save_weights)]:
        path = FOLDER / f"{name}{suffix}"
        try:
            save(str(path))
        except Exception as e:
            path.unlink(missing_ok=True)
            print(f"{name}{suffix}: Keras {VERSION} does not write it: {str(e)[:150]!r}", file=sys.stderr)
    if trains(m) and not name.startswith("policy"):
        try:
            tensors |= {f"t{i}": t for i, t in enumerate(step(m, name, xs[0], ys, rng))}
            stepped += 1
        except Exception as e:
            print(f"{name}: Keras {VERSION} does not train it: {str(e)[:150]!r}", file=sys.stderr)
    save_file(tensors, FOLDER / f"{name}.safetensors")
    made += 1
print(f"{made} models of Keras {VERSION} in {FOLDER}, {stepped} of them after a step of training", file=sys.stderr)

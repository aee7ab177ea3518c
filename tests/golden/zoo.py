#!/usr/bin/env python3
"""What the networks are compared with: lists of weights, and fixtures of whole networks.

    python zoo.py list zoo.json
    python zoo.py fixture OUT_DIR MODEL[:SIZE] ... [--seed 0] [--batch 2]

`list` writes for every network of keras.applications that Hubel has, with its classifier and without (pooling avg),
the SHA-256 of the lines "path extents" of its weights in Keras's order, and the counts of parameters and layers.

`fixture` writes OUT_DIR/MODEL/
    weights.safetensors   every weight, f32, under Keras's own path (HWIO, HWCM, IO)
    io.safetensors        input, output, logits and act/<layer name> intermediates (NHWC), computed in f64
    meta.json             counts, order of the weights, the deviations from f64 of Keras's f32 (float32_deviation) and of
                          f64 with each layer's results rounded to f32, up or down at random (rounding_spread)
of a network of keras.applications, or of one that is built here of Keras's layers as its paper says. The weights are
random but well scaled: He-normal kernels, random gamma and beta, moving statistics that are those of the input with
noise, so that the activations neither die nor explode at any depth, and the terms all matter.

Needs: pip install keras==3.15.1 jax==0.10.2 safetensors==0.8.0 numpy==2.4.6. With PyTorch and KERAS_BACKEND=torch,
`fixture` takes seconds for a network rather than minutes.
"""
import argparse, hashlib, json, os, time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.update(JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")
import numpy as np
import keras
from keras import layers as L
from safetensors.numpy import save_file

A = keras.applications
# name: (native size, mode of preprocess_input)
KERAS = {
    "VGG16": (224, "caffe"), "VGG19": (224, "caffe"),
    "ResNet50": (224, "caffe"), "ResNet101": (224, "caffe"), "ResNet152": (224, "caffe"),
    "InceptionV3": (299, "tf"), "InceptionResNetV2": (299, "tf"), "Xception": (299, "tf"),
    "MobileNet": (224, "tf"), "MobileNetV2": (224, "tf"),
    "MobileNetV3Small": (224, "identity"), "MobileNetV3Large": (224, "identity"),
    "DenseNet121": (224, "torch"), "DenseNet169": (224, "torch"), "DenseNet201": (224, "torch"),
    "EfficientNetB0": (224, "identity"), "EfficientNetB1": (240, "identity"), "EfficientNetB2": (260, "identity"),
    "EfficientNetB3": (300, "identity"), "EfficientNetB4": (380, "identity"), "EfficientNetB5": (456, "identity"),
    "EfficientNetB6": (528, "identity"), "EfficientNetB7": (600, "identity"),
}
# Networks of random blocks so deep that one layer's rounding to f32 grows beyond the tolerance: their blocks are small
# beside their shortcuts, as trained ones are.
DEEP = ("ResNet101", "ResNet152")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


# The networks that keras.applications has not.

class LRN(L.Layer):
    """x / (bias + alpha / size * sum of squares over size channels) ** beta"""

    def call(self, x, size=5, alpha=5e-4, beta=0.75, bias=2.0):
        squares = keras.ops.pad(keras.ops.square(x), [[0, 0]] * 3 + [[size // 2, size // 2]])
        total = sum(squares[..., i:i + x.shape[-1]] for i in range(size))
        return x / (bias + alpha / size * total) ** beta


def lenet5(x):
    x = L.MaxPooling2D(2, name="pool1")(L.Conv2D(6, 5, activation="relu", name="conv1")(x))
    x = L.MaxPooling2D(2, name="pool2")(L.Conv2D(16, 5, activation="relu", name="conv2")(x))
    x = L.Dense(120, activation="relu", name="fc1")(L.Flatten()(x))
    x = L.Dense(84, activation="relu", name="fc2")(x)
    return L.Dense(10, activation="softmax", name="predictions")(x)


def alexnet(x):
    pool = lambda i, x: L.MaxPooling2D(3, 2, name=f"pool{i}")(x)
    conv = lambda i, x, *a, **k: L.Conv2D(*a, activation="relu", name=f"conv{i}", **k)(x)
    x = pool(1, LRN(name="norm1")(conv(1, x, 96, 11, strides=4)))
    x = pool(2, LRN(name="norm2")(conv(2, x, 256, 5, padding="same", groups=2)))
    x = conv(3, x, 384, 3, padding="same")
    x = conv(4, x, 384, 3, padding="same", groups=2)
    x = pool(5, conv(5, x, 256, 3, padding="same", groups=2))
    x = L.Flatten(name="flatten")(x)
    for i in (1, 2):
        x = L.Dropout(0.5, name=f"dropout{i}")(L.Dense(4096, activation="relu", name=f"fc{i}")(x))
    return L.Dense(1000, activation="softmax", name="predictions")(x)


def vgg(rows):
    def build(x):
        for b, sizes in enumerate(rows):
            for i, size in enumerate(sizes):
                conv = L.Conv2D((64, 128, 256, 512, 512)[b], size, padding="same", activation="relu",
                                name=f"block{b + 1}_conv{i + 1}")
                x = conv(x)
            x = L.MaxPooling2D(2, name=f"block{b + 1}_pool")(x)
        x = L.Flatten(name="flatten")(x)
        x = L.Dense(4096, activation="relu", name="fc1")(x)
        x = L.Dense(4096, activation="relu", name="fc2")(x)
        return L.Dense(1000, activation="softmax", name="predictions")(x)
    return build


def resnet(depths, kind):
    """As torchvision has it: the stride in the first 3x3 convolution, padded on both sides, no biases, epsilon 1e-5."""
    def conv(x, filters, size, strides, name):
        if size == 3:
            x = L.ZeroPadding2D(1)(x)
        x = L.Conv2D(filters, size, strides=strides, use_bias=False, name=f"{name}_conv")(x)
        return L.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)

    def build(x):
        x = L.ZeroPadding2D(3, name="conv1_pad")(x)
        x = L.ReLU(name="conv1_relu")(conv(x, 64, 7, 2, "conv1"))
        x = L.MaxPooling2D(3, 2, name="pool1_pool")(L.ZeroPadding2D(1, name="pool1_pad")(x))
        for s, depth in enumerate(depths):
            for b in range(depth):
                n, f, stride = f"conv{s + 2}_block{b + 1}", 64 * 2**s, 2 if s and not b else 1
                out = f if kind == "basic" else 4 * f
                short = x if stride == 1 and x.shape[-1] == out else conv(x, out, 1, stride, n + "_0")
                if kind == "basic":
                    y = L.ReLU()(conv(x, f, 3, stride, n + "_1"))
                    y = conv(y, f, 3, 1, n + "_2")
                else:
                    y = L.ReLU()(conv(x, f, 1, 1, n + "_1"))
                    y = L.ReLU()(conv(y, f, 3, stride, n + "_2"))
                    y = conv(y, out, 1, 1, n + "_3")
                if kind == "se":
                    e = L.GlobalAveragePooling2D(keepdims=True)(y)
                    e = L.Dense(out // 16, activation="relu", name=n + "_se_reduce")(e)
                    e = L.Dense(out, activation="sigmoid", name=n + "_se_expand")(e)
                    y = y * e
                x = L.ReLU(name=n + "_out")(L.Add(name=n + "_add")([short, y]))
        x = L.GlobalAveragePooling2D(name="avg_pool")(x)
        return L.Dense(1000, activation="softmax", name="predictions")(x)
    return build


def lite(width, depth, dropout):
    """EfficientNet-Lite as its authors describe it, on Keras's blocks."""
    def round8(f):
        n = max(8, int(f + 4) // 8 * 8)
        return n + 8 if n < 0.9 * f else n

    def build(x):
        def bn(x, name, act=None):
            x = L.BatchNormalization(name=name + "bn")(x)
            return L.ReLU(6.0, name=act)(x) if act else x
        x = L.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
        x = bn(x, "stem_", "stem_activation")
        rows = [(3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1),
                (5, 4, 192, 6, 2), (3, 1, 320, 6, 1)]
        for i, (k, repeats, filters, expand, stride) in enumerate(rows):
            repeats = repeats if i in (0, 6) else int(np.ceil(depth * repeats))
            filters = round8(filters * width)
            for j in range(repeats):
                n, y = f"block{i + 1}{chr(97 + j)}_", x
                if expand > 1:
                    y = L.Conv2D(x.shape[-1] * expand, 1, use_bias=False, name=n + "expand_conv")(y)
                    y = bn(y, n + "expand_", n + "expand_activation")
                y = L.DepthwiseConv2D(k, strides=stride if j == 0 else 1, padding="same", use_bias=False,
                                      name=n + "dwconv")(y)
                y = bn(y, n, n + "activation")
                y = bn(L.Conv2D(filters, 1, use_bias=False, name=n + "project_conv")(y), n + "project_")
                if y.shape == x.shape:
                    y = L.Add(name=n + "add")([y, x])
                x = y
        x = bn(L.Conv2D(1280, 1, use_bias=False, name="top_conv")(x), "top_", "top_activation")
        x = L.Dropout(dropout)(L.GlobalAveragePooling2D(name="avg_pool")(x))
        return L.Dense(1000, activation="softmax", name="predictions")(x)
    return build


def unet(x):
    def double(x, filters, name):
        for i in (1, 2):
            x = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv{i}")(x)
            x = L.ReLU(name=f"{name}_relu{i}")(L.BatchNormalization(name=f"{name}_bn{i}")(x))
        return x
    skips = []
    for i, f in enumerate((16, 32, 64, 128)):
        x = double(x, f, f"down{i + 1}")
        skips.append(x)
        x = L.MaxPooling2D(2, name=f"down{i + 1}_pool")(x)
    x = double(x, 256, "bottom")
    for i, f in reversed(list(enumerate((16, 32, 64, 128)))):
        x = L.Conv2DTranspose(f, 2, strides=2, name=f"up{i + 1}")(x)
        x = double(L.Concatenate(name=f"up{i + 1}_concat")([skips[i], x]), f, f"up{i + 1}")
    return L.Softmax(name="predictions")(L.Conv2D(2, 1, name="logits")(x))


def torch_resnet50(x):
    return resnet([3, 4, 6, 3], "bottleneck")(x)


# name: (builder, native size, channels, mode)
OTHERS = {
    "LeNet5": (lenet5, 32, 1, "mnist"),
    "AlexNet": (alexnet, 227, 3, "torch"),
    "VGG11": (vgg([[3], [3], [3] * 2, [3] * 2, [3] * 2]), 224, 3, "torch"),
    "VGG13": (vgg([[3] * 2] * 5), 224, 3, "torch"),
    "VGG16C": (vgg([[3] * 2] * 2 + [[3, 3, 1]] * 3), 224, 3, "torch"),
    "ResNet18": (resnet([2, 2, 2, 2], "basic"), 224, 3, "torch"),
    "ResNet34": (resnet([3, 4, 6, 3], "basic"), 224, 3, "torch"),
    "SEResNet50": (resnet([3, 4, 6, 3], "se"), 224, 3, "torch"),
    "ResNet50-torchvision": (torch_resnet50, 224, 3, "torch"),
    "EfficientNetLite0": (lite(1.0, 1.0, 0.2), 224, 3, "lite"),
    "EfficientNetLite1": (lite(1.0, 1.1, 0.2), 240, 3, "lite"),
    "EfficientNetLite2": (lite(1.1, 1.2, 0.3), 260, 3, "lite"),
    "UNet": (unet, 128, 3, "unit"),
}


def image(rng, batch, size, channels):
    """Random images in [0,255]: a smooth part (so that pooling and strides matter) plus noise."""
    k = max(2, size // 16)
    low = rng.uniform(0, 255, (batch, k, k, channels))
    at = np.linspace(0, k - 1, size)
    i0 = np.floor(at).astype(int)
    i1, f = np.minimum(i0 + 1, k - 1), at - i0
    rows = low[:, i0] * (1 - f)[None, :, None, None] + low[:, i1] * f[None, :, None, None]
    x = rows[:, :, i0] * (1 - f)[None, None, :, None] + rows[:, :, i1] * f[None, None, :, None]
    return np.clip(x + rng.uniform(-40, 40, x.shape), 0, 255)


def preprocess(x, mode):
    if mode == "tf":
        return x / 127.5 - 1.0
    if mode == "torch":
        return (x / 255.0 - MEAN) / STD
    if mode == "caffe":  # RGB -> BGR, zero centred, not scaled
        return x[..., ::-1] - np.array([103.939, 116.779, 123.68])
    if mode == "lite":
        return (x - 127.0) / 128.0
    if mode == "mnist":
        return (x / 255.0 - 0.1307) / 0.3081
    return x / 255.0 if mode == "unit" else x


def build(name, size, top, floatx="float32"):
    keras.backend.clear_session()  # automatic names (conv2d_12, ...) restart from zero
    keras.config.set_floatx(floatx)
    if name in OTHERS:
        x = L.Input((size, size, OTHERS[name][2]))
        return keras.Model(x, OTHERS[name][0](x))
    options = dict(include_top=True, classes=1000) if top else dict(include_top=False, pooling="avg")
    return getattr(A, name)(weights=None, input_shape=(size, size, 3), **options)


def to_np(t):
    return np.asarray(keras.ops.convert_to_numpy(t))


def count(ws):
    return int(sum(int(np.prod(w.shape)) for w in ws))


def counts(model):
    return dict(params_total=count(model.weights), params_trainable=count(model.trainable_weights),
                layers=len(model.layers))


def listing(out):
    keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: np.zeros(shape, "float32")
    table = {}
    for name, (size, _) in KERAS.items():
        table[name] = {}
        for key, top in (("top", True), ("no_top", False)):
            model = build(name, size, top)
            lines = "".join(" ".join([w.path, *map(str, w.shape)]) + "\n" for w in model.weights)
            table[name][key] = dict(weights=hashlib.sha256(lines.encode()).hexdigest(), **counts(model),
                                    output=list(model.output.shape[1:]))
        print(name, table[name]["top"], flush=True)
    with open(out, "w") as f:
        json.dump(table, f, indent=1)
        f.write("\n")


def walk(model, x, visit):
    """Runs the functional graph one operation at a time; visit(op, call, args) returns the result."""
    def operation_fn(op):
        def run(*args, **kwargs):
            if getattr(op, "_call_has_training_arg", False):
                kwargs["training"] = False
            return visit(op, lambda: op(*args, **kwargs), args)
        return run
    return model._run_through_graph(x, operation_fn=operation_fn)


def beside_identity(op):
    """Whether the result is added to one that is no batch normalisation's."""
    adds = [node.operation for node in op._outbound_nodes if isinstance(node.operation, L.Add)]
    return any(not isinstance(x._keras_history.operation, L.BatchNormalization) for add in adds for x in add.input)


def randomise(name, model, rng, x):
    """Sets every weight; moving statistics are calibrated on the way through."""
    last = model.layers[-1]

    def fan_normal(shape, fan_in, gain):
        return rng.normal(0.0, np.sqrt(gain / fan_in), shape)

    def visit(op, call, args):
        if isinstance(op, L.BatchNormalization):
            v = to_np(args[0]).astype(np.float64)
            axes = tuple(range(v.ndim - 1))
            m, s2 = v.mean(axes), v.var(axes)
            small = 0.3 if name in DEEP and beside_identity(op) else 1.0
            values = dict(gamma=small * rng.uniform(0.5, 1.5, m.shape), beta=rng.normal(0, 0.2, m.shape),
                          moving_mean=m + 0.1 * np.sqrt(s2 + 1e-3) * rng.normal(0, 1, m.shape),
                          moving_variance=(s2 + 1e-3) * rng.uniform(0.7, 1.4, m.shape))
            for w in op.weights:
                w.assign(values[w.name])
        elif isinstance(op, L.Normalization):
            for w in op.weights:
                if w.name in ("mean", "variance"):
                    w.assign((MEAN if w.name == "mean" else STD**2).reshape(w.shape))
            op.finalize_state()
        elif isinstance(op, L.Layer) and op.weights:
            for w in op.weights:
                shape = tuple(w.shape)
                if w.name == "bias":
                    w.assign(rng.normal(0, 0.1, shape))
                elif w.name == "depthwise_kernel" or isinstance(op, L.DepthwiseConv2D):
                    w.assign(fan_normal(shape, shape[0] * shape[1], 1.5))
                elif isinstance(op, L.Dense):
                    w.assign(fan_normal(shape, shape[0], 9.0 if op is last else 2.0))
                elif isinstance(op, L.Conv2DTranspose):
                    w.assign(fan_normal(shape, shape[3], 2.0))
                else:  # Conv2D HWIO, pointwise kernel
                    w.assign(fan_normal(shape, int(np.prod(shape[:-1])), 2.0))
        return call()

    walk(model, x, visit)


def pick(model):
    """The last layer of an early, a middle and the last resolution, and the pooled features."""
    by_height = {}
    for layer in model.layers:
        named = not layer.name.startswith(("re_lu", "activation"))
        if isinstance(layer, (L.InputLayer, L.ZeroPadding2D, L.Dropout)) or not named:
            continue
        if len(layer.output.shape) == 4 and layer.output.shape[1] > 1:
            by_height[layer.output.shape[1]] = layer.name  # model.layers is in topological order
    heights = sorted(by_height, reverse=True)
    names = []
    for h in (heights[min(1, len(heights) - 1)], heights[len(heights) // 2], heights[-1]):
        if by_height[h] not in names:
            names.append(by_height[h])
    pooled = [layer.name for layer in model.layers
              if isinstance(layer, L.GlobalAveragePooling2D) and layer.name == "avg_pool"]
    return names + pooled[-1:]


def rounded(y, rng):
    """Each number as one of the two float32 beside it, the nearer the likelier."""
    y = to_np(y)
    near = y.astype(np.float32)
    other = np.nextafter(near, np.where(y > near, np.float32(np.inf), np.float32(-np.inf)))
    near, gap = near.astype(np.float64), other.astype(np.float64) - near
    return keras.ops.convert_to_tensor(near + gap * (rng.random(y.shape) < (y - near) / gap))


def run(model, x, names, rng=None):
    """The network's results; with rng, each layer's are rounded to float32 at random."""
    acts, box = {}, {}
    last = model.layers[-1]
    dense = isinstance(last, L.Dense)

    def visit(op, call, args):
        y = call() if rng is None else rounded(call(), rng)
        if op is last and not dense:  # a softmax of its own
            box["logits"] = to_np(args[0])
        if op.name in names:
            acts["act/" + op.name] = to_np(y)
        return y

    if dense:  # the logits: the same net with the classifier's softmax taken off
        keep, last.activation = last.activation, keras.activations.linear
        logits = to_np(walk(model, x, visit))
        last.activation = keep
        out = to_np(keep(keras.ops.convert_to_tensor(logits)))
    else:
        out = to_np(walk(model, x, visit))
        logits = box["logits"]
    return {"output": out, "logits": logits, **acts}


def fixture(name, out_dir, seed, batch, size):
    start = time.time()
    if name in OTHERS:
        _, native, channels, mode = OTHERS[name]
    else:
        (native, mode), channels = KERAS[name], 3
    size = size or native
    rng = np.random.default_rng([seed, sum(name.encode()), size])
    x = preprocess(image(rng, batch, size, channels), mode).astype(np.float32)
    model = build(name, size, True)
    names = pick(model)
    randomise(name, model, rng, x)
    weights = {w.path: np.array(to_np(w), np.float32, order="C") for w in model.weights}
    assert len(weights) == len(model.weights), "a path occurs twice"
    meta = dict(model=name, keras=keras.__version__, seed=seed, batch=batch, size=size, **counts(model))
    single = run(model, x, names)
    double = build(name, size, True, "float64")
    assert [w.path for w in double.weights] == list(weights)
    double.set_weights([w.astype(np.float64) for w in weights.values()])
    for layer in double.layers:  # what is computed with is a copy of the weights
        if isinstance(layer, L.Normalization):
            layer.finalize_state()
    exact = run(double, x.astype(np.float64), names)
    spread = [run(double, x.astype(np.float64), names, np.random.default_rng([seed, i])) for i in range(4)]
    keras.config.set_floatx("float32")

    def off(key, value):
        largest = max(float(np.abs(exact[key]).max()), 1e-30)
        return float(np.abs(exact[key] - value[key].astype(np.float64)).max()) / largest

    assert all(v.dtype == np.float64 and np.isfinite(v).all() for v in exact.values())
    deviation = {key: off(key, single) for key in exact}
    spread = {key: max(off(key, one) for one in spread) for key in exact}
    folder = os.path.join(out_dir, name)
    os.makedirs(folder, exist_ok=True)
    save_file(weights, os.path.join(folder, "weights.safetensors"))
    tensors = {"input": x, **{k: np.ascontiguousarray(v.astype(np.float32)) for k, v in exact.items()}}
    save_file(tensors, os.path.join(folder, "io.safetensors"))
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump(dict(meta, float32_deviation=deviation, rounding_spread=spread, weights=list(weights)), f, indent=1)
    print(f"{name} {size}: {meta['params_total']:,} parameters, {names}, Keras's f32 off by"
          f" {max(deviation.values()):.1e} of the largest, exact layers rounded by {max(spread.values()):.1e},"
          f" {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("out")
    make = commands.add_parser("fixture")
    make.add_argument("out_dir")
    make.add_argument("models", nargs="+", metavar="MODEL[:SIZE]")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--batch", type=int, default=2)
    args = parser.parse_args()
    if args.command == "list":
        listing(args.out)
    else:
        for model in args.models:
            name, _, size = model.partition(":")
            fixture(name, args.out_dir, args.seed, args.batch, int(size or 0))

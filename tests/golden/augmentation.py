#!/usr/bin/env python3
"""What Keras's augmentation layers, and its Resizing with bands, make of two images each, where their factors leave nothing to chance.

    pip install keras==3.15.1 jax==0.10.2 safetensors numpy
    KERAS_BACKEND=jax python tests/golden/augmentation.py

Writes augmentation.json, a list of name and options, and augmentation.safetensors: the images `colour` and `grey`, and
`NAME/colour`, `NAME/grey` for each case.
"""
import json
import pathlib

import jax
import keras
import numpy as np
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)
images = {
    "colour": rng.integers(0, 256, (2, 7, 8, 3)).astype("float32"),
    "grey": rng.integers(0, 256, (2, 6, 6, 1)).astype("float32"),
}
cases, tensors = [], dict(images)


def case(layer, config, given=None, kinds=("colour", "grey")):
    """A layer in training, or its transform_images on a transformation."""
    name = f"{layer} {len(cases):03}"
    for key, x in images.items():
        if key not in kinds:
            continue
        made = getattr(keras.layers, layer)(**config)
        if given is None:
            y = np.asarray(made(x, training=True))
            assert (np.asarray(made(x, training=True)) == y).all(), f"{name} is random"
        else:
            y = np.asarray(made.transform_images(jax.numpy.asarray(x), given, training=True))
        if config.get("interpolation") == "nearest":
            # No place so near a half that another rounding would take its neighbour.
            for shift in (-1e-5, 1e-5):
                moved = {k: [v[0] + shift] * 2 if "factor" in k else v for k, v in config.items()}
                assert (np.asarray(getattr(keras.layers, layer)(**moved)(x, training=True)) == y).all(), config
        tensors[f"{name}/{key}"] = np.ascontiguousarray(y, dtype="float32")
    cases.append({"name": name, "class": layer, "config": config})


for fill in ("constant", "nearest", "reflect", "wrap"):
    for interpolation in ("nearest", "bilinear"):
        rest = {"fill_mode": fill, "interpolation": interpolation}
        if fill == "constant":
            rest["fill_value"] = 17.0
        for a in (0.07, -0.19):
            case("RandomRotation", {"factor": [a, a], **rest})
        for h, w in ((0.13, -0.22), (-0.71, 0.83)):
            case("RandomTranslation", {"height_factor": [h, h], "width_factor": [w, w], **rest})
        for h, w in ((-0.17, -0.17), (0.27, 0.27), (0.41, -0.37)):
            case("RandomZoom", {"height_factor": [h, h], "width_factor": [w, w], **rest})
case("RandomZoom", {"height_factor": [0.27, 0.27], "fill_mode": "constant", "interpolation": "bilinear"})
for f in (0.4, 1.7, 3.0):
    factor = np.full((2, 1, 1, 1), f, "float32")
    case("RandomContrast", {"factor": 0.5}, {"contrast_factor": factor})
    cases[-1]["config"]["factor"] = [1 - f, f - 1]
for a in (0.2, -0.3):
    case("RandomBrightness", {"factor": [a, a], "value_range": [0, 255]})
# Parts of the middle, and of images that are too small along one axis or both.
for size in ((5, 6), (4, 3), (9, 5), (3, 9), (9, 10)):
    case("CenterCrop", {"height": size[0], "width": size[1]})
# As large as the images along one axis at least: no place is drawn.
for size in ((7, 6), (9, 5), (6, 9), (9, 10)):
    case("RandomCrop", {"height": size[0], "width": size[1]})
for height, width in ((6, 6), (5, 13), (12, 4)):
    for interpolation in ("nearest", "bilinear"):
        pad = {"pad_to_aspect_ratio": True, "fill_value": 9.0, "interpolation": interpolation}
        case("Resizing", {"height": height, "width": width, **pad})
for factor in (0.0, 1.0):
    case("RandomGrayscale", {"factor": factor})
    case("RandomInvert", {"factor": [factor, factor], "value_range": [0, 255]})
for factor in (0.3, 0.9):
    case("RandomColorDegeneration", {"factor": [factor, factor]})
for bits in (1, 3, 8):
    case("RandomPosterization", {"factor": [bits, bits]})
for factor in (0.2, 0.5, 0.8):
    case("RandomSaturation", {"factor": [factor, factor]}, kinds=["colour"])
# Half a turn is the same both ways.
case("RandomHue", {"factor": [1.0, 1.0]}, {"factor": np.full(2, 0.5, "float32")}, kinds=["colour"])
case("RandomHue", {"factor": [0.0, 0.0]}, kinds=["colour"])
case("Solarization", {})
# A value halfway between two is rounded to the even one, and in JAX to the lower one; grey images have none.
for options in ({}, {"value_range": [-50, 300]}):
    case("Equalization", options, kinds=["grey"])
case("Equalization", {"bins": 20})
# To the one side, and to the other.
for config in ({"x_factor": [0.3, 0.3], "y_factor": [0.1, 0.1]}, {"x_factor": [0.0, 0.0], "y_factor": [0.2, 0.2], "fill_mode": "constant", "fill_value": 9.0},
               {"x_factor": [0.15, 0.15], "y_factor": [0.4, 0.4], "fill_mode": "wrap"}, {"x_factor": [0.25, 0.25], "y_factor": [0.0, 0.0], "fill_mode": "nearest"}):
    factors = jax.numpy.asarray([[config["x_factor"][0], config["y_factor"][0]]] * 2)
    case("RandomShear", config, {"shear_factor": -factors, "input_shape": None})
    name = cases.pop()["name"]
    other = {key: x for key, x in tensors.items() if key.startswith(name)}
    case("RandomShear", config, {"shear_factor": factors, "input_shape": None})
    tensors |= {f"{key}/other": x for key, x in other.items()} | {key: tensors[key] for key in other}
for f in (0.0, 0.3, 1.0):
    case("RandomSharpness", {"factor": [f, f]})
case("RandomSharpness", {"factor": [0.9, 0.9], "value_range": [20, 180]})
for size, s in (([3, 3], 1.0), ([5, 3], 0.4), ([3, 7], 0.9)):
    for f in (0.0, 1.0):
        case("RandomGaussianBlur", {"factor": [f, f], "kernel_size": size, "sigma": [s, s]})
for f in (0.0, 1.0):
    case("RandomErasing", {"factor": [f, f], "scale": [1.0, 1.0], "fill_value": 7.0})
case("RandomErasing", {"factor": [1.0, 1.0], "scale": [0.0, 0.0], "fill_value": 7.0})
case("RandAugment", {"num_ops": 0})
case("RandomColorJitter", {"brightness_factor": [0.1, 0.1], "saturation_factor": [0.4, 0.4]}, kinds=["colour"])

(HERE / "augmentation.json").write_text(json.dumps(cases, indent=0) + "\n")
save_file(tensors, HERE / "augmentation.safetensors")
print(len(cases), "cases")

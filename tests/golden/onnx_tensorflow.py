"""Exports networks by tf2onnx, with channels last, for tests/onnx: onnx_tensorflow.py FOLDER."""
import pathlib
import sys

import keras
import tensorflow as tf
import tf2onnx
from keras import layers

SIDE = 64


def network():
    x = keras.Input((SIDE, SIDE, 3))
    y = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    y = layers.Activation("relu6")(layers.BatchNormalization()(y))
    for filters, strides in ((24, 2), (24, 1), (32, 2)):
        z = layers.ZeroPadding2D(((0, 1), (0, 1)))(y) if strides == 2 else y
        z = layers.DepthwiseConv2D(3, strides=strides, padding="valid" if strides == 2 else "same", use_bias=False)(z)
        z = layers.Activation("swish")(layers.BatchNormalization()(z))
        s = layers.GlobalAveragePooling2D(keepdims=True)(z)
        s = layers.Conv2D(z.shape[-1], 1, activation="sigmoid")(layers.Conv2D(8, 1, activation="relu")(s))
        z = layers.Conv2D(filters, 1)(layers.Multiply()([z, s]))
        y = layers.Add()([y, z]) if y.shape == z.shape else z
    a = layers.UpSampling2D(2, interpolation="bilinear")(y)
    a = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(a)
    a = layers.Concatenate()([layers.AveragePooling2D(2, padding="same")(a), layers.UpSampling2D(2)(y)])
    b = layers.Dense(10, activation="softmax")(layers.Dropout(0.2)(layers.Flatten()(y)))
    return keras.Model(x, [layers.LayerNormalization()(a), b])


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(1)
    model = network()
    model(tf.random.normal((4, SIDE, SIDE, 3)), training=True)
    function = tf.function(lambda x: model(x, training=False))
    signature = [tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="input")]
    tf2onnx.convert.from_function(function, signature, opset=17, output_path=str(folder / "tf2onnx.onnx"))
    (folder / "tf2onnx.runs").write_text(f"{SIDE},{SIDE},3\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

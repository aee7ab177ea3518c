"""Exports networks to ONNX as others do, for tests/onnx: torch's exporter, forms of tf2onnx, ONNX Runtime's quantisation.

Each of NETWORKS writes a file into the given folder and returns extents of its inputs without the batch, one list for each run.
Weights are drawn; statistics of batch normalisations are those of a batch of noise, so that they are not 0 and 1.
"""
import pathlib
import sys

import numpy as np
import onnx
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

SIDE = 96


def settled(model, *shape):
    """Returns the model for inference, with statistics of noise and no weight that hides a part."""
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(parameter, 0.2, 0.6)
        elif name.endswith("bias"):
            nn.init.uniform_(parameter, -0.1, 0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.randn(4, *shape))
    return model.eval()


def export(folder, name, model, *shape, axes=(), outputs=("output",), opset=17):
    """Writes the model with an open batch, and further open axes by number and name."""
    x = torch.randn(2, *shape)
    open_axes = {0: "batch", **dict(axes)}
    path = folder / f"{name}.onnx"
    dynamic = {"input": open_axes, **{o: {0: "batch"} for o in outputs}}
    names = {"input_names": ["input"], "output_names": list(outputs)}
    torch.onnx.export(model, x, path, dynamic_axes=dynamic, opset_version=opset, dynamo=False, **names)


def vision(build, side=SIDE, **options):
    """Returns a writer of a network of torchvision."""

    def write(folder, name):
        model = settled(build(weights=None), 3, side, side)
        export(folder, name, model, 3, side, side, **options)
        return [[[3, side, side]]]

    return write


class Block(nn.Sequential):
    """Convolution, normalisation and SiLU, as detectors have them."""

    def __init__(self, i, o, k=1, stride=1, groups=1):
        convolution = nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(o), nn.SiLU())


class UNet(nn.Module):
    """Two levels down; up by a transposed convolution and by a resize to the size of its partner."""

    def __init__(self):
        super().__init__()
        double = lambda i, o: nn.Sequential(*[
            m for a, b in ((i, o), (o, o)) for m in (nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        ])
        self.first, self.second, self.bottom = double(3, 8), double(8, 16), double(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.third, self.fourth = double(32, 16), double(24, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        x = self.third(torch.cat([b, self.up(c)], 1))
        x = F.interpolate(x, size=a.shape[2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(self.last(self.fourth(torch.cat([a, x], 1))))


class Crnn(nn.Module):
    """Columns of maps as a sequence for two LSTMs of both directions; the width stays open."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d((2, 1)), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d((8, 1)),
        )
        self.lstm = nn.LSTM(32, 24, num_layers=2, bidirectional=True)
        self.classes = nn.Linear(48, 11)

    def forward(self, x):
        x = self.maps(x)
        n, c, h, w = x.size()
        x = x.reshape(n, c * h, w).permute(2, 0, 1)
        x, _ = self.lstm(x)
        return F.log_softmax(self.classes(x), 2).permute(1, 0, 2)


class Yolox(nn.Module):
    """Focus, pooling pyramid, two scales, decoupled heads, and a grid made of the maps' sizes."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = Block(12, 16, 3)
        self.down = nn.Sequential(Block(16, 24, 3, 2), Block(24, 24, 3))
        self.deep = Block(24, 32, 3, 2)
        self.squeeze, self.pooled = Block(32, 16), Block(64, 32)
        self.lateral, self.joined = Block(32, 24), Block(48, 24, 3)
        self.heads = nn.ModuleList(
            nn.ModuleList([Block(c, 16), nn.Conv2d(16, classes, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 1, 1)]) for c in (24, 32)
        )

    def forward(self, x):
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        a = self.down(self.stem(torch.cat(corners, 1)))
        b = self.squeeze(self.deep(a))
        b = self.pooled(torch.cat([b] + [F.max_pool2d(b, k, 1, k // 2) for k in (5, 9, 13)], 1))
        a = self.joined(torch.cat([a, F.interpolate(self.lateral(b), scale_factor=2.0, mode="nearest")], 1))
        results, grids, strides = [], [], []
        for (stem, classes, boxes, objects), maps, stride in zip(self.heads, (a, b), (4, 8)):
            y = stem(maps)
            y = torch.cat([boxes(y), objects(y).sigmoid(), classes(y).sigmoid()], 1)
            h, w = y.shape[-2:]
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grids.append(torch.stack((columns, rows), 2).view(1, -1, 2))
            strides.append(torch.full((1, h * w, 1), stride))
            results.append(y.flatten(2))
        y = torch.cat(results, 2).permute(0, 2, 1)
        grid, stride = torch.cat(grids, 1).type(y.dtype), torch.cat(strides, 1).type(y.dtype)
        return torch.cat([(y[..., :2] + grid) * stride, torch.exp(y[..., 2:4]) * stride, y[..., 4:]], -1)


class C2f(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.first, self.last = Block(i, o), Block(o // 2 * 3, o)
        self.inner = nn.Sequential(Block(o // 2, o // 2, 3), Block(o // 2, o // 2, 3))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolov8(nn.Module):
    """C2f, SPPF, distances as softmax over bins, boxes of anchors made of the maps' sizes."""

    def __init__(self, classes=5, bins=8):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem = nn.Sequential(Block(3, 16, 3, 2), Block(16, 24, 3, 2), C2f(24, 24))
        self.deep = nn.Sequential(Block(24, 32, 3, 2), C2f(32, 32))
        self.before, self.after = Block(32, 16), Block(64, 32)
        self.up = nn.Upsample(None, 2, "nearest")
        self.joined = C2f(56, 24)
        self.heads = nn.ModuleList(
            nn.ModuleList([nn.Sequential(Block(c, 16, 3), nn.Conv2d(16, 4 * bins, 1)), nn.Conv2d(c, classes, 1)]) for c in (24, 32)
        )

    def forward(self, x):
        a = self.stem(x)
        pooled = [self.before(self.deep(a))]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        b = self.after(torch.cat(pooled, 1))
        a = self.joined(torch.cat([self.up(b), a], 1))
        maps = [torch.cat([boxes(y), classes(y)], 1) for (boxes, classes), y in zip(self.heads, (a, b))]
        points, strides = [], []
        for y, stride in zip(maps, (4, 8)):
            h, w = y.shape[-2:]
            sy, sx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            points.append(torch.stack((sx, sy), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), float(stride)))
        anchors, strides = torch.cat(points).transpose(0, 1), torch.cat(strides).transpose(0, 1)
        n = x.shape[0]
        box, cls = torch.cat([y.view(n, 4 * self.bins + self.classes, -1) for y in maps], 2).split((4 * self.bins, self.classes), 1)
        b, _, a = box.shape
        weights = torch.arange(self.bins, dtype=torch.float).view(1, self.bins, 1, 1)
        distances = (box.view(b, 4, self.bins, a).transpose(2, 1).softmax(1) * weights).sum(1)
        before, after = distances.chunk(2, 1)
        low, high = anchors.unsqueeze(0) - before, anchors.unsqueeze(0) + after
        return torch.cat(((low + high) / 2 * strides, (high - low) * strides, cls.sigmoid()), 1)


def open_sides(build):
    """Returns a writer of a detector with open batch, height and width."""

    def write(folder, name):
        model = settled(build(), 3, SIDE, SIDE)
        export(folder, name, model, 3, SIDE, SIDE, axes=((2, "height"), (3, "width")))
        return [[[3, 96, 96]], [[3, 64, 128]]]

    return write


def large(folder, name):
    (folder / "large").mkdir(exist_ok=True)
    export(folder / "large", name, settled(torchvision.models.resnet50(weights=None), 3, SIDE, SIDE), 3, 224, 224)


def unet(folder, name):
    export(folder, name, settled(UNet(), 3, 64, 64), 3, 64, 64, axes=((2, "height"), (3, "width")))
    return [[[3, 64, 64]], [[3, 48, 80]]]


def crnn(folder, name):
    export(folder, name, settled(Crnn(), 1, 32, 100), 1, 32, 100, axes=((3, "width"),))
    return [[[1, 32, 100]], [[1, 32, 64]]]


class Detector(nn.Module):
    """YOLOv8 for one image, with torchvision's suppression: boxes, scores and numbers of those that remain."""

    def __init__(self):
        super().__init__()
        self.network = Yolov8()

    def forward(self, x):
        y = self.network(x)[0].transpose(0, 1)
        boxes = torchvision.ops.box_convert(y[:, :4], "cxcywh", "xyxy")
        scores = y[:, 4:].max(1).values
        kept = torchvision.ops.nms(boxes, scores, 0.5)
        return boxes[kept], scores[kept], kept


def detector(folder, name):
    model = Detector()
    settled(model.network, 3, SIDE, SIDE)
    names = {"input_names": ["input"], "output_names": ["boxes", "scores", "kept"]}
    torch.onnx.export(model.eval(), torch.randn(1, 3, SIDE, SIDE), folder / f"{name}.onnx", opset_version=17, dynamo=False, **names)
    return [[[3, SIDE, SIDE]]]


def suppressed(folder, name):
    """YOLOv8 with a NonMaxSuppression behind it, for a batch and each class."""
    open_sides(Yolov8)(folder, name)
    path = folder / f"{name}.onnx"
    model = onnx.load(path)
    graph = model.graph
    constants = {
        "nms.sizes": np.array([4, 5], np.int64), "nms.max": np.array([20], np.int64),
        "nms.iou": np.array([0.4], np.float32), "nms.score": np.array([0.3], np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    graph.node.extend([
        helper.make_node("Split", ["output", "nms.sizes"], ["nms.rows", "nms.scores"], axis=1, name="nms.split"),
        helper.make_node("Transpose", ["nms.rows"], ["nms.boxes"], perm=[0, 2, 1], name="nms.transpose"),
        helper.make_node("NonMaxSuppression", ["nms.boxes", "nms.scores", "nms.max", "nms.iou", "nms.score"], ["kept"],
                         center_point_box=1, name="nms"),
    ])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("kept", TensorProto.INT64, ["rows", 3]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return [[[3, 96, 96]], [[3, 64, 128]]]


def quantised(folder, name):
    """A small network in ONNX Runtime's three forms of 8 bits, and without what it draws from the images."""
    from onnxruntime import quantization as q

    body = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )
    plain = folder / "plain.tmp"
    export(folder, plain.stem, settled(body, 3, 48, 48), 3, 48, 48)
    (folder / "plain.onnx").rename(plain)

    class Noise(q.CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"input": torch.randn(4, 3, 48, 48).numpy()} for _ in range(4)])

        def get_next(self):
            return next(self.rest, None)

    q.quantize_dynamic(plain, folder / "int8_dynamic.onnx")
    q.quantize_static(plain, folder / "int8_qdq.onnx", Noise(), q.QuantFormat.QDQ, per_channel=True)
    q.quantize_static(plain, folder / "int8_operators.onnx", Noise(), q.QuantFormat.QOperator, op_types_to_quantize=["Conv"])
    plain.unlink()
    onnx.save(in_floats(onnx.load(folder / "int8_dynamic.onnx")), folder / "int8_dynamic.wanted")
    for form in ("dynamic", "qdq", "operators"):
        (folder / f"int8_{form}.runs").write_text("3,48,48\n")


def in_floats(model):
    """Returns a quantised model computed in floats: images stay as they are, weights are what their whole numbers say."""
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            x, scale, zero = node.output
            nodes.append(helper.make_node("Identity", node.input, [x]))
            for result, value in ((scale, np.array(1, np.float32)), (zero, np.array(0, np.float32))):
                graph.initializer.append(numpy_helper.from_array(value, result))
        elif node.op_type in ("ConvInteger", "MatMulInteger"):
            x, w, _, zero = node.input
            weights = constants[w].astype(np.float32) - constants[zero].astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(weights, f"{w}.floats"))
            plain = helper.make_node(node.op_type.removesuffix("Integer"), [x, f"{w}.floats"], node.output)
            plain.attribute.extend(node.attribute)
            nodes.append(plain)
        elif node.op_type == "Cast":
            nodes.append(helper.make_node("Identity", node.input, node.output))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


NETWORKS = {
    "resnet18": vision(torchvision.models.resnet18, 128),
    "resnet50": large,
    "mobilenet_v3_small": vision(torchvision.models.mobilenet_v3_small),
    "mobilenet_v3_large": vision(torchvision.models.mobilenet_v3_large),
    "efficientnet_b0": vision(torchvision.models.efficientnet_b0),
    "densenet121": vision(torchvision.models.densenet121),
    "convnext_tiny": vision(torchvision.models.convnext_tiny, 64),
    "unet": unet,
    "crnn": crnn,
    "yolox": open_sides(Yolox),
    "yolov8": open_sides(Yolov8),
    "nms_of_one": detector,
    "nms_of_classes": suppressed,
    "int8": quantised,
}


def main(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NETWORKS):
        torch.manual_seed(i)
        runs = NETWORKS[name](folder, name) if name in names or not names else None
        if runs:
            text = "\n".join("\t".join(",".join(map(str, e)) for e in run) for run in runs)
            (folder / f"{name}.runs").write_text(text + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])

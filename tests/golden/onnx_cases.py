"""Writes onnx_cases.safetensors: small models of our own making with inputs, and outputs by ONNX Runtime.

Usage: onnx_cases.py. Needs pip install onnx==1.19.1 onnxruntime==1.32.0 numpy safetensors.
"""
import pathlib

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
RNG = np.random.default_rng(7)
TENSORS = {}


def noise(*shape, low=-1.0, high=1.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def case(name, op, x, constants=(), opset=17, outputs=1, **attributes):
    """One node on the inputs `x` (floats) and constants; None leaves an operand out."""
    xs = x if isinstance(x, list) else [x]
    names, initializers, inputs = [], [], []
    for i, array in enumerate(xs):
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, array.shape))
        names.append(f"x{i}")
    for i, array in enumerate(constants):
        if array is None:
            names.append("")
            continue
        initializers.append(numpy_helper.from_array(array, f"c{i}"))
        names.append(f"c{i}")
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name=f"node/{name}", **attributes)
    whole = [op in ("ArgMax", "ArgMin", "NonMaxSuppression") or (op == "TopK" and i == 1) for i in range(outputs)]
    types = [TensorProto.INT64 if w else TensorProto.FLOAT for w in whole]
    infos = [helper.make_tensor_value_info(r, t, None) for r, t in zip(results, types)]
    model(name, [node], inputs, infos, initializers, xs, opset)


def model(name, nodes, inputs, outputs, initializers, xs, opset):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    feeds = {i.name: x for i, x in zip(inputs, xs)}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, feeds)
    for info, result in zip(proto.graph.output, results):
        info.CopyFrom(helper.make_tensor_value_info(info.name, helper.np_dtype_to_tensor_dtype(result.dtype), result.shape))
    checker.check_model(proto)
    assert name not in TENSORS, name
    TENSORS[f"{name}/model"] = np.frombuffer(proto.SerializeToString(), dtype=np.uint8)
    for i, x in enumerate(xs):
        TENSORS[f"{name}/x{i}"] = x
    for i, y in enumerate(results):
        TENSORS[f"{name}/y{i}"] = np.array(y, dtype=np.float32, order="C")


def elementwise():
    for op in ["Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg",
               "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Atan", "Sinh",
               "Cosh", "Asinh", "Celu", "ThresholdedRelu", "Identity"]:
        case(op.lower(), op, noise(2, 3, 5, low=-3, high=3))
    case("mish", "Mish", noise(2, 3, 5), opset=18)
    case("gelu", "Gelu", noise(2, 3, 5), opset=20)
    case("gelu_tanh", "Gelu", noise(2, 3, 5), opset=20, approximate="tanh")
    for op in ["Asin", "Acos", "Atanh"]:
        case(op.lower(), op, noise(2, 3, 5, low=-0.9, high=0.9))
    for op in ["Log", "Sqrt", "Reciprocal"]:
        case(op.lower(), op, noise(2, 3, 5, low=0.2, high=3))
    case("acosh", "Acosh", noise(2, 3, 5, low=1.2, high=9))
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]:
        case(f"{op.lower()}_channels", op, noise(2, 3, 4, 5), [noise(3, 1, 1, low=0.5, high=2)])
        case(f"{op.lower()}_two", op, [noise(2, 3, 4), noise(2, 3, 4, low=0.5, high=2)])
    case("pow_whole", "Pow", noise(2, 3), [np.array(3, np.float32)])
    case("pow", "Pow", [noise(2, 3, low=0.1), noise(2, 3)])
    case("clip", "Clip", noise(3, 4, low=-3, high=3), [np.array(-1, np.float32), np.array(1.5, np.float32)])
    case("clip_6", "Clip", noise(3, 4, low=-3, high=3), opset=10, min=0.0, max=2.0)
    case("prelu", "PRelu", noise(2, 3, 4, 4), [noise(3, 1, 1)])
    case("shrink", "Shrink", noise(3, 4), lambd=0.3, bias=0.1)
    case("mod", "Mod", [noise(3, 4, low=-5, high=5), noise(3, 4, low=1, high=3)], fmod=1)


def windows():
    w = noise(4, 3, 3, 3)
    case("conv", "Conv", noise(2, 3, 7, 8), [w, noise(4)], pads=[1, 1, 1, 1])
    case("conv_strides", "Conv", noise(1, 3, 9, 9), [w], strides=[2, 2], pads=[0, 1, 2, 1])
    case("conv_same_upper", "Conv", noise(1, 3, 7, 8), [w], auto_pad="SAME_UPPER", strides=[2, 2])
    case("conv_same_lower", "Conv", noise(1, 3, 7, 8), [w], auto_pad="SAME_LOWER", strides=[2, 2])
    case("conv_dilated", "Conv", noise(1, 3, 9, 9), [w], dilations=[2, 2])
    case("conv_groups", "Conv", noise(1, 4, 6, 6), [noise(6, 2, 3, 3), noise(6)], group=2)
    case("conv_depthwise", "Conv", noise(2, 3, 6, 6), [noise(3, 1, 3, 3)], group=3, pads=[1, 1, 1, 1])
    case("conv_1d", "Conv", noise(2, 3, 9), [noise(4, 3, 3), noise(4)], pads=[1, 1])
    case("conv_1x1", "Conv", noise(2, 3, 4, 5), [noise(5, 3, 1, 1)])
    t = noise(3, 4, 3, 3)
    case("conv_transpose", "ConvTranspose", noise(1, 3, 4, 4), [t], strides=[2, 2])
    case("conv_transpose_pads", "ConvTranspose", noise(1, 3, 4, 4), [t, noise(4)], strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 1])
    case("conv_transpose_1d", "ConvTranspose", noise(1, 3, 5), [noise(3, 2, 3)], strides=[2])
    case("max_pool", "MaxPool", noise(2, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2])
    case("max_pool_ceil", "MaxPool", noise(1, 3, 7, 7), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    case("max_pool_pads", "MaxPool", noise(1, 3, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    case("max_pool_dilated", "MaxPool", noise(1, 3, 8, 8), kernel_shape=[2, 2], dilations=[2, 2])
    case("max_pool_1d", "MaxPool", noise(1, 3, 9), kernel_shape=[3])
    case("average_pool", "AveragePool", noise(2, 3, 8, 8), kernel_shape=[3, 3], strides=[2, 2])
    case("average_pool_pads", "AveragePool", noise(1, 3, 8, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    case("average_pool_counted", "AveragePool", noise(1, 3, 8, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1],
         count_include_pad=1)
    case("lp_pool", "LpPool", noise(1, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2], p=2)
    for op in ["GlobalAveragePool", "GlobalMaxPool"]:
        case(op.lower(), op, noise(2, 3, 5, 6))
    case("resize_nearest", "Resize", noise(1, 2, 4, 5), [None, np.array([1, 1, 2, 2], np.float32)], mode="nearest")
    case("resize_linear", "Resize", noise(1, 2, 4, 5), [None, np.array([1, 1, 2, 2], np.float32)], mode="linear")
    case("resize_sizes", "Resize", noise(1, 2, 4, 5), [None, None, ints(1, 2, 7, 3)], mode="linear")
    case("resize_corners", "Resize", noise(1, 2, 4, 5), [None, None, ints(1, 2, 7, 9)], mode="linear",
         coordinate_transformation_mode="align_corners")
    case("resize_cubic", "Resize", noise(1, 2, 4, 5), [None, np.array([1, 1, 2, 2], np.float32)], mode="cubic")
    case("depth_to_space", "DepthToSpace", noise(1, 8, 2, 3), blocksize=2)
    case("depth_to_space_crd", "DepthToSpace", noise(1, 8, 2, 3), blocksize=2, mode="CRD")
    case("space_to_depth", "SpaceToDepth", noise(1, 2, 4, 6), blocksize=2)


def norms():
    c = [noise(3, low=0.5), noise(3), noise(3), noise(3, low=0.5, high=2)]
    case("batch_norm", "BatchNormalization", noise(2, 3, 4, 5), c)
    case("instance_norm", "InstanceNormalization", noise(2, 3, 4, 5), c[:2])
    case("layer_norm", "LayerNormalization", noise(2, 3, 5), [noise(5), noise(5)])
    case("layer_norm_two_axes", "LayerNormalization", noise(2, 3, 5), [noise(3, 5), noise(3, 5)], axis=1)
    case("group_norm", "GroupNormalization", noise(2, 4, 3, 3), [noise(4), noise(4)], opset=21, num_groups=2)
    case("lrn", "LRN", noise(2, 5, 3, 3), size=3, alpha=0.1)
    case("lp_norm", "LpNormalization", noise(2, 3, 4), axis=1)
    for op in ["Softmax", "LogSoftmax", "Hardmax"]:
        case(f"{op.lower()}_last", op, noise(2, 3, 4))
        case(f"{op.lower()}_channels", op, noise(2, 3, 4, 2), axis=1)
    case("softmax_rows", "Softmax", noise(2, 3, 4), opset=11, axis=1)


def products():
    case("gemm", "Gemm", noise(2, 5), [noise(5, 3), noise(3)])
    case("gemm_turned", "Gemm", noise(2, 5), [noise(3, 5), noise(3)], transB=1, alpha=0.5, beta=2.0)
    case("matmul", "MatMul", noise(2, 4, 5), [noise(5, 3)])
    case("matmul_stacks", "MatMul", [noise(2, 3, 4, 5), noise(2, 3, 5, 2)])
    case("matmul_vector", "MatMul", noise(2, 4, 5), [noise(5)])
    case("einsum", "Einsum", [noise(2, 3, 4), noise(2, 5, 4)], equation="bij,bkj->bik")
    for op in ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
               "ReduceLogSumExp"]:
        case(f"{op.lower()}_maps", op, noise(2, 3, 4, 5), axes=[2, 3], keepdims=1)
        case(f"{op.lower()}_one", op, noise(2, 3, 4, 5), axes=[1], keepdims=0)
    case("reduce_sum", "ReduceSum", noise(2, 3, 4), [ints(-1)], keepdims=0)
    case("reduce_all", "ReduceMean", noise(3, 4), keepdims=0)
    case("arg_max", "ArgMax", noise(2, 3, 4), axis=1)
    case("arg_min", "ArgMin", noise(2, 3, 4), axis=2, keepdims=0)
    case("top_k", "TopK", noise(2, 7), [ints(3)], outputs=2)
    case("cumsum", "CumSum", noise(2, 6), [np.array(1)])
    case("cumsum_reverse", "CumSum", noise(2, 6), [np.array(1)], reverse=1, exclusive=1)


def moves():
    case("reshape", "Reshape", noise(2, 3, 4), [ints(0, -1)])
    case("flatten", "Flatten", noise(2, 3, 4, 5))
    case("transpose", "Transpose", noise(2, 3, 4), perm=[0, 2, 1])
    case("transpose_all", "Transpose", noise(2, 3, 4))
    case("squeeze", "Squeeze", noise(2, 1, 3, 1), [ints(1, 3)])
    case("unsqueeze", "Unsqueeze", noise(2, 3), [ints(0, 3)])
    case("expand", "Expand", noise(2, 1, 3), [ints(2, 4, 3)])
    case("tile", "Tile", noise(2, 3), [ints(1, 2)])
    case("concat", "Concat", [noise(2, 3, 4), noise(2, 2, 4)], axis=1)
    case("split", "Split", noise(2, 6), [ints(2, 4)], axis=1, outputs=2)
    case("slice", "Slice", noise(2, 6, 7), [ints(1, 0), ints(5, 100), ints(1, 2), ints(2, 3)])
    case("slice_back", "Slice", noise(2, 6), [ints(-1), ints(-100), ints(1), ints(-1)])
    case("pad", "Pad", noise(2, 3, 4, 5), [ints(0, 0, 1, 2, 0, 0, 0, 1), np.array(0.5, np.float32)])
    case("pad_reflect", "Pad", noise(2, 3, 4, 5), [ints(0, 0, 1, 2, 0, 0, 0, 1)], mode="reflect")
    case("pad_edge", "Pad", noise(2, 3, 4), [ints(0, 1, 1, 0, 0, 2)], mode="edge")
    case("gather", "Gather", noise(2, 5, 3), [ints(0, 4, 2)], axis=1)
    case("gather_one", "Gather", noise(2, 5, 3), [np.array(-1)], axis=1)
    case("gather_elements", "GatherElements", noise(2, 3), [np.array([[0, 2], [1, 0]])], axis=1)
    case("gather_nd", "GatherND", noise(2, 3, 4), [np.array([[0, 1], [1, 2]])])
    case("scatter_elements", "ScatterElements", noise(3, 3), [np.array([[1, 0, 2]]), noise(1, 3)])
    case("scatter_nd", "ScatterND", noise(4, 2), [np.array([[1], [3]]), noise(2, 2)])
    case("trilu", "Trilu", noise(2, 4, 4))


def recurrent():
    seq, units, width = 4, 3, 2
    for op, gates in [("LSTM", 4), ("GRU", 3), ("RNN", 1)]:
        w, r, b = noise(1, gates * units, width), noise(1, gates * units, units), noise(1, 2 * gates * units)
        case(op.lower(), op, noise(seq, 2, width), [w, r, b], outputs=2, hidden_size=units)
    w, r = noise(1, 3 * units, width), noise(1, 3 * units, units)
    case("gru_after", "GRU", noise(seq, 2, width), [w, r, noise(1, 6 * units)], outputs=2, hidden_size=units,
         linear_before_reset=1)


def quantised():
    scale, zero = np.array(0.1, np.float32), np.array(3, np.uint8)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    constants = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")]
    model("quantize", nodes, [x], [y], constants, [noise(2, 3, low=-2, high=2)], 21)


def steps():
    """What recurrent operators have besides: peepholes, clip, coupled gates, lengths, other functions."""
    seq, units, width = 4, 3, 2
    w, r, b = noise(2, 4 * units, width), noise(2, 4 * units, units), noise(2, 8 * units)
    lengths, peepholes = np.array([4, 2], np.int32), noise(2, 3 * units)
    x = noise(seq, 2, width, low=-3, high=3)
    options = {"outputs": 3, "hidden_size": units, "direction": "bidirectional"}
    case("lstm_peepholes", "LSTM", x, [w, r, b, None, None, None, peepholes], **options)
    case("lstm_lengths", "LSTM", x, [w, r, b, lengths, noise(2, 2, units), noise(2, 2, units), peepholes], **options)
    case("lstm_clip", "LSTM", x, [w, r, b], clip=0.7, **options)
    case("lstm_coupled", "LSTM", x, [w, r, b], input_forget=1, **options)
    w, r, b = noise(1, 3 * units, width), noise(1, 3 * units, units), noise(1, 6 * units)
    for after in (0, 1):
        case(f"gru_lengths_{after}", "GRU", x, [w, r, b, lengths], outputs=2, hidden_size=units, direction="reverse",
             linear_before_reset=after)
    w, r, b = noise(1, units, width), noise(1, units, units), noise(1, 2 * units)
    case("rnn_softsign_lengths", "RNN", x, [w, r, b, lengths], outputs=2, hidden_size=units, activations=["Softsign"])


def boxes():
    corners = RNG.uniform(0, 9, (2, 30, 2)).astype(np.float32)
    sizes = RNG.uniform(1, 4, (2, 30, 2)).astype(np.float32)
    scores = noise(2, 3, 30, low=0, high=1)
    options = [np.array(4, np.int64), np.array(0.3, np.float32), np.array(0.1, np.float32)]
    case("suppression", "NonMaxSuppression", [np.concatenate([corners, corners + sizes], 2), scores], options)
    case("suppression_of_centres", "NonMaxSuppression", [np.concatenate([corners, sizes], 2), scores], options,
         center_point_box=1)
    x = noise(1, 3, 9, 7)
    rois = np.array([[0.5, 1, 5, 6], [2, -3, 8, 4], [3.2, 3.1, 3.6, 3.3]], np.float32)
    for mode in ("avg", "max"):
        for half in ("half_pixel", "output_half_pixel"):
            case(f"regions_{mode}_{half}", "RoiAlign", [x], [rois, ints(0, 0, 0)], opset=16, mode=mode, output_height=3,
                 output_width=2, sampling_ratio=2, spatial_scale=0.9, coordinate_transformation_mode=half)


def volumes():
    x = noise(1, 3, 4, 3, 5)
    case("conv_transpose_3d", "ConvTranspose", [x], [noise(3, 4, 3, 2, 3), noise(4)])
    case("conv_transpose_3d_strides", "ConvTranspose", [x], [noise(3, 2, 3, 3, 2)], strides=[2, 3, 2],
         pads=[1, 0, 1, 0, 2, 0], output_padding=[1, 2, 0])
    case("conv_transpose_3d_groups", "ConvTranspose", [noise(1, 4, 3, 3, 3)], [noise(4, 2, 2, 2, 2)], group=2,
         dilations=[2, 1, 2])
    case("conv_transpose_3d_computed", "ConvTranspose", [noise(1, 1, 3, 4, 5), noise(1, 2, 3, 3, 3)])
    grid = noise(1, 2, 3, 2, 3, low=-1.2, high=1.2)
    for mode in ("linear", "nearest"):
        for corners in (0, 1):
            case(f"grid_volume_{mode}_{corners}", "GridSample", [x], [grid], opset=20, mode=mode, align_corners=corners)
    image = noise(1, 2, 9, 8)
    for mode in ("linear", "cubic"):
        case(f"resize_antialias_{mode}", "Resize", image, [None, np.array([1, 1, 0.6, 0.4], np.float32)], opset=18,
             mode=mode, antialias=1)
        case(f"resize_antialias_{mode}_inside", "Resize", image, [None, None, ints(1, 2, 4, 3)], opset=18, mode=mode,
             antialias=1, exclude_outside=int(mode == "cubic"))


def without_inputs():
    info = lambda name, kind, shape=[]: helper.make_tensor_value_info(name, kind, shape)
    nodes = [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Add", ["sum", "step"], ["next"]),
             helper.make_node("Identity", ["sum"], ["each"])]
    body = helper.make_graph(nodes, "body", [info("round", TensorProto.INT64), info("go", TensorProto.BOOL),
                                             info("sum", TensorProto.FLOAT)],
                             [info("goes", TensorProto.BOOL), info("next", TensorProto.FLOAT), info("each", TensorProto.FLOAT)])
    constants = [("count", np.array(4)), ("start", np.array(0.5, np.float32)), ("step", np.array(1.25, np.float32))]
    constants = [numpy_helper.from_array(array, name) for name, array in constants]
    loop = helper.make_node("Loop", ["count", "", "start"], ["last", "all"], body=body)
    model("loop_of_rounds", [loop], [], [info("last", TensorProto.FLOAT), info("all", TensorProto.FLOAT, None)], constants, [], 17)


for part in [elementwise, windows, norms, products, moves, recurrent, quantised, steps, boxes, volumes, without_inputs]:
    part()
names = {name.split("/")[0] for name in TENSORS}
save_file(TENSORS, HERE / "onnx_cases.safetensors")
print(len(names), "cases")

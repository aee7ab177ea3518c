"""PyTorch on the GPU that `benches/gpu` times: a JSON line for each measurement, in milliseconds.

Peers are torch-f32 and torch-tf32 (TF32 off and on), with -nhwc for channels_last and -graph for a replayed CUDA graph. `flb` is
forward, loss and backward, `train` a whole step with SGD.
"""
import argparse
import contextlib
import json
import statistics
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--budget", type=float, default=120.0)
parser.add_argument("--quick", action="store_true")
arguments = parser.parse_args()
END = time.monotonic() + arguments.budget
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SIDE = 64 if arguments.quick else 224


def sync():
    if CUDA:
        torch.cuda.synchronize()


def measure(bench, peer, run):
    if time.monotonic() > END:
        print(json.dumps({"part": f"{bench} {peer}", "error": "no time left"}), flush=True)
        return
    for _ in range(3):
        run()
    sync()
    times, end = [], time.monotonic() + (0.1 if arguments.quick else 0.6)
    while len(times) < 5 or (time.monotonic() < end and len(times) < 300):
        start = time.perf_counter()
        run()
        sync()
        times.append((time.perf_counter() - start) * 1e3)
    line = {"bench": bench, "peer": peer, "ms_median": statistics.median(times), "ms_min": min(times), "n": len(times)}
    print(json.dumps(line), flush=True)


def captured(run):
    """Returns the replay of a CUDA graph of what `run` does."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def both(bench, peer, run):
    """Measures with and without a CUDA graph."""
    measure(bench, peer, run)
    if CUDA and time.monotonic() < END:
        try:
            measure(bench, peer + "-graph", captured(run))
        except RuntimeError as error:
            print(json.dumps({"part": f"{bench} {peer}-graph", "error": str(error)[:200]}), flush=True)


@contextlib.contextmanager
def precision(tf32):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    yield


def network(name, model, batch, trains, tf32, nhwc):
    peer = ("torch-tf32" if tf32 else "torch-f32") + ("-nhwc" if nhwc else "")
    model = model.to(DEVICE)
    x, y = torch.randn(batch, 3, SIDE, SIDE, device=DEVICE), torch.randint(1000, (batch,), device=DEVICE)
    if nhwc:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    with precision(tf32):
        model.eval()
        with torch.no_grad():
            both(f"{name}_b{batch}_infer", peer, lambda: model(x))
        if not trains:
            return
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)

        def backward():
            optimizer.zero_grad(set_to_none=False)
            torch.nn.functional.cross_entropy(model(x), y).backward()

        def step():
            backward()
            optimizer.step()

        # Gradients must be there before a graph is captured.
        torch.nn.functional.cross_entropy(model(x), y).backward()
        both(f"{name}_b{batch}_flb", peer, backward)
        measure(f"{name}_b{batch}_train", peer, step)


def main():
    print(json.dumps({"part": "PyTorch", "version": torch.__version__, "device": torch.cuda.get_device_name() if CUDA else "cpu"}))
    n = 256 if arguments.quick else 4096
    a, b = torch.randn(n, n, device=DEVICE), torch.randn(n, n, device=DEVICE)
    for tf32 in (False, True):
        with precision(tf32):
            measure(f"matmul/{n}x{n}_{n}x{n}", "torch-tf32" if tf32 else "torch-f32", lambda: a @ b)
    import torchvision.models as known

    cases = [("resnet50", known.resnet50, [(1, False), (4, True), (32, True)]),
             ("mobilenetv2", known.mobilenet_v2, [(1, False), (32, True)]),
             ("efficientnetb0", known.efficientnet_b0, [(1, False), (32, True)]), ("vgg16", known.vgg16, [(1, False), (32, True)])]
    for name, make, batches in cases[:1] if arguments.quick else cases:
        for batch, trains in batches[:1] if arguments.quick else batches:
            for tf32 in (False, True):
                for nhwc in (False, True):
                    if time.monotonic() < END:
                        network(name, make(), batch, trains, tf32, nhwc)


main()

#!/usr/bin/env python3
"""What TensorBoard's own reader finds in a folder of event files, as JSON.

    pip install tensorboard==2.21.0
    python tests/golden/events.py DIR

One entry for each tag: `scalars` has [step, value], `histograms` has step, count, least, greatest, sum, sum of squares,
right edges and counts of the buckets. `shown` says what TensorBoard shows of the files after its conversion of older
kinds of summary: plugin and number of points for each tag.
"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as Shown

everything = {"scalars": 0, "histograms": 0, "tensors": 0}
events = EventAccumulator(sys.argv[1], size_guidance=everything).Reload()
shown = Shown(sys.argv[1], size_guidance=everything).Reload()


def histogram(event):
    h = event.histogram_value
    return {
        "step": event.step,
        "num": h.num,
        "min": h.min,
        "max": h.max,
        "sum": h.sum,
        "sum_squares": h.sum_squares,
        "limits": list(h.bucket_limit),
        "buckets": list(h.bucket),
    }


print(
    json.dumps(
        {
            "file_version": events.file_version,
            "scalars": {t: [[e.step, e.value] for e in events.Scalars(t)] for t in events.Tags()["scalars"]},
            "histograms": {t: [histogram(e) for e in events.Histograms(t)] for t in events.Tags()["histograms"]},
            "shown": {
                t: [shown.SummaryMetadata(t).plugin_data.plugin_name, len(shown.Tensors(t))] for t in shown.Tags()["tensors"]
            },
        },
        indent=1,
    )
)

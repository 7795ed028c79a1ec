"""No server at all: onnxruntime in a loop on one row. Prints requests, seconds, CPU seconds, and p50 and p99 in ms.

`python onnxruntime_loop.py MODEL_DIR SECONDS`; threads as $OMP_NUM_THREADS says.
"""

import json
import os
import sys
import time

import numpy as np
import onnxruntime


def main(folder: str, seconds: float) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(
        os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    stored = np.load(os.path.join(folder, "rows.npz"))
    feeds = {each.name: stored[f"0.{each.name}"] for each in session.get_inputs()}
    expected = stored["answers"][0]
    for _ in range(2):
        found = session.run(None, feeds)[0][0]
        assert np.abs(found - expected).max() <= 1e-3 * max(1.0, np.abs(expected).max())
    times = []
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - before) * 1000)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    p50, p99 = np.percentile(times, [50, 99])
    print(
        json.dumps({"requests": len(times), "seconds": elapsed, "cpu_s": cpu, "p50_ms": p50, "p99_ms": p99})
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

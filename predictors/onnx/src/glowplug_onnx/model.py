"""An ONNX model on onnxruntime behind the V1 and V2 protocols.

Names, datatypes and shapes are the model's own. A prediction is computed in a worker thread, so that health probes
are answered meanwhile, unless it takes less time than handing it over does. Rows of several requests are computed at
once where `rows.py` finds that they may be, and that it is faster.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from glowplug.errors import InferenceError
from glowplug.serving import Model
from glowplug.serving.model import zeros
from glowplug.serving.onnx_form import MAPPED, Forms
from glowplug.wire import InferRequest, InferResponse, Tensor
from glowplug_onnx.files import find_model
from glowplug_onnx.int8 import difference, faster_model
from glowplug_onnx.rows import SIZES, Verdict, examine, trial
from glowplug_onnx.session import open_session, opened, run, session_options
from glowplug_onnx.signature import Signature, asked_outputs, feeds, signatures, to_tensor

log = logging.getLogger("glowplug.onnx")

# A hop to a thread and back costs 0.04 ms of CPU. What takes no more than this on the warm-up's inputs stays on the
# event loop, up to inputs this many times as large: it may hold the loop for some ms, but not for longer.
QUICK_S = 0.0002
QUICK_RATIO = 16
# The first prediction of a process is slower than the next; one that took longer than this is of no quick model.
FIRST_QUICK_S = 0.02
MAX_BATCH_SIZE = 32
# Root mean square of the difference, as a share of that of the output: what sums in another order come to.
SAME = 1e-5


class OnnxModel(Model):
    """Any model whose inputs and outputs are tensors of numbers or strings."""

    platform = "onnxruntime_onnx"

    def __init__(
        self,
        name: str,
        model_dir: str,
        *,
        threads: int = 1,
        accepts_missing: bool = False,
        max_batch_size: int = MAX_BATCH_SIZE,
        int8_folder: Path | None = None,
        forms: Forms | None = None,
    ) -> None:
        """`int8_folder` is where int8 forms are kept; None: they are not tried. `forms` None: none are kept."""
        super().__init__(name)
        self._forms = forms
        # The file that is served: the model's, or its int8 form.
        self._path = Path()
        self.accepts_missing = accepts_missing
        self._max_rows = max_batch_size
        self._int8_folder = int8_folder
        # Whether rows of several requests are computed at once, and why.
        self.batching = Verdict(False, "not warmed up")
        self._model_dir = model_dir
        self._threads = threads
        self._session: Any = None
        self._takes: tuple[Signature, ...] = ()
        self._gives: tuple[Signature, ...] = ()
        self._quick_elements = 0
        self._is_form = False
        # Each call computes with all threads, so more calls at a time than threads only take memory.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="onnx")

    def load(self) -> None:
        """Opens the model file. Raises StorageError or ConfigError."""
        path = find_model(self._model_dir)
        if self._int8_folder is not None:
            path, reason = faster_model(path, self._int8_folder, self._threads)
            self.facts["int8"] = reason
            log.info("%s", reason)
        self._path = path
        session = self._opened(path)
        self._takes = signatures(path, "input", session.get_inputs())
        self._gives = signatures(path, "output", session.get_outputs())
        self.inputs = tuple(each.spec for each in self._takes)
        self.outputs = tuple(each.spec for each in self._gives)
        self._session = session
        log.info("%s: %d threads", path.name, self._threads)

    async def warmup(self) -> None:
        """Predicts zeros, dynamic axes being 1, and learns how quick the model is and whether it takes batches.

        Not every model can compute that (a picture of one pixel); such a one starts without.
        """
        await self._try_zeros()
        self._examine_rows()

    async def _try_zeros(self) -> None:
        request = InferRequest(self.name, tuple(zeros(spec) for spec in self.inputs))
        started = perf_counter()
        try:
            await self.predict(request)
        except InferenceError as error:
            log.warning("no warm-up: zeros with dynamic axes of 1 are refused (%s)", error.message)
            return
        if perf_counter() - started > FIRST_QUICK_S:
            return
        started = perf_counter()
        self._compute(request)
        if perf_counter() - started <= QUICK_S:
            self._quick_elements = QUICK_RATIO * _elements(request)

    def _examine_rows(self) -> None:
        names = [each.name for each in self._gives]
        if self._max_rows > 1:
            self.batching = examine(
                self._takes, self._gives, lambda arrays: run(self._session, names, arrays)
            )
        else:
            self.batching = Verdict(False, "--max_batch_size is 1")
        self.max_batch_size = self._max_rows if self.batching.is_batched else 1
        self.facts["batches"] = self.batching.reason
        log.info("%s: %s", "batches" if self.batching.is_batched else "no batches", self.batching.reason)

    def improve(self) -> None:
        """Weights that all replicas share, where there is a place for them."""
        if self._forms is None or self._is_form:
            return
        session, self.facts["weights"] = self._forms.make(self._path, opened, self._computes_the_same)
        log.info("weights: %s", self.facts["weights"])
        if session is not None:
            # Predictions that are being computed keep the other one.
            self._session = session

    def _opened(self, path: Path) -> Any:
        self._is_form = False
        if self._forms is None:
            return open_session(path, self._threads)
        session_options(self._threads)  # says what is wrong where there is no onnxruntime
        session, self._is_form = self._forms.open(path, opened)
        if self._is_form:
            self.facts["weights"] = MAPPED
        return session

    def _computes_the_same(self, other: Any) -> bool:
        names = [each.name for each in self._gives]
        for size in SIZES:
            rows = trial(self._takes, size, 0)
            try:
                expected = run(self._session, names, rows)
            except InferenceError:
                continue
            return difference(expected, run(other, names, rows)) <= SAME
        return False

    async def predict(self, request: InferRequest) -> InferResponse:
        """Raises InferenceError: 400 where the inputs are not this model's."""
        if _elements(request) <= self._quick_elements:
            return self._compute(request)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._compute, request)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _compute(self, request: InferRequest) -> InferResponse:
        arrays = feeds(self._takes, request)
        wanted = asked_outputs(self._gives, request)
        values = run(self._session, [each.name for each in wanted], arrays)
        outputs: tuple[Tensor, ...] = tuple(map(to_tensor, wanted, values))
        return InferResponse(self.name, outputs)


def _elements(request: InferRequest) -> int:
    return sum(tensor.size for tensor in request.inputs)

"""The transformer: image files → one tensor → the predictor → its outputs, and the best classes if asked for.

Images are decoded in worker threads (Pillow lets go of the interpreter's lock), so that health probes and other
requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.serving import Model, PredictorClient, ServerConfig, TensorSpec
from glowplug.wire import InferRequest, InferResponse, RequestedOutput, Tensor
from glowplug.wire.v2_grpc import ModelMetadata
from glowplug_image.decode import BadImage, decode
from glowplug_image.payload import image_files, place
from glowplug_image.preprocess import crop, normalize
from glowplug_image.ranking import Ranking
from glowplug_image.settings import ImageConfig

log = logging.getLogger("glowplug.image")

INPUT = "image"
DATATYPE = "FP32"
# What a V1 predictor, which cannot be asked, gets.
DEFAULT_INPUT = "input-0"


class ImageTransformer(Model):
    """Input: BYTES [n], a JPEG or PNG file each. Outputs: the predictor's, and those of the ranking."""

    platform = "glowplug-image"
    inputs = (TensorSpec(INPUT, "BYTES", (-1,)),)

    def __init__(self, config: ServerConfig, images: ImageConfig, *, threads: int, ranking: Ranking) -> None:
        super().__init__(config.model_name)
        self._images = images
        self._ranking = ranking
        self._predictor = PredictorClient(config.predictor)
        self._input = DEFAULT_INPUT
        self._fits = False
        self._not_ready = ""
        self.outputs = ranking.specs
        # Bounds the memory too: this many images are held decoded at a time.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image")

    async def warmup(self) -> None:
        """Opens the connection. The predictor need not be there yet: readiness waits for it."""
        await self.is_ready()

    async def is_ready(self) -> bool:
        """Whether the predictor takes these tensors; asked until it does, then never again."""
        if not self._fits:
            reason = await self._misfit()
            self._fits = not reason
            if reason and reason != self._not_ready:
                log.warning("not ready: %s", reason)
            self._not_ready = reason
        return self._fits

    async def predict(self, request: InferRequest) -> InferResponse:
        """Raises InferenceError: 400 for images that are refused, 503 without a predictor that fits."""
        if not self._fits and not await self.is_ready():
            raise InferenceError(f"{self.name} is not ready: {self._not_ready}", code=503)
        tensor = await self._tensor(request)
        added = {spec.name for spec in self._ranking.specs}
        asked = {output.name for output in request.outputs}
        # The scores are needed for a ranking, whether they are asked for or not.
        is_ranked = bool(added) and (not asked or bool(asked & added))
        passed = () if is_ranked else tuple(RequestedOutput(output.name) for output in request.outputs)
        response = await self._predictor.infer(
            InferRequest(self.name, (tensor,), id=request.id, outputs=passed)
        )
        outputs = response.outputs
        if is_ranked and outputs:
            outputs = (*outputs, *self._ranking(outputs[0]))
        return replace(response, model_name=self.name, id=request.id, outputs=outputs)

    async def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        await self._predictor.aclose()

    async def _tensor(self, request: InferRequest) -> Tensor:
        """FP32 [n, ...] of the request's images. Raises InferenceError (400) for the first that is refused."""
        files = image_files(request, self._images.max_images)
        batch: Any = np.empty((len(files), *self._images.shape), dtype=np.float32)
        loop = asyncio.get_running_loop()
        work = [
            loop.run_in_executor(self._pool, prepare, data, self._images, batch[index])
            for index, data in enumerate(files)
        ]
        try:
            for index, future in enumerate(work):
                try:
                    await future
                except BadImage as error:
                    where = place(request.inputs[0], index)
                    raise InferenceError(f"{where} {error}") from error
        finally:
            # After a refusal, or when the caller has gone: what has not begun yet never does.
            for future in work:
                future.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return Tensor(self._input, DATATYPE, batch.shape, batch)

    async def _misfit(self) -> str:
        """Why the predictor cannot be used yet, or ""."""
        try:
            metadata = await self._predictor.metadata(self.name)
        except InferenceError as error:
            return error.message
        if metadata is None:
            return ""
        reason = input_misfit(metadata, self._images.shape) or self._ranking.misfit(metadata.outputs)
        if not reason:
            self._input = metadata.inputs[0].name
            self.outputs = (*metadata.outputs, *self._ranking.specs)
        return reason


def prepare(data: bytes, config: ImageConfig, out: Any) -> None:
    """Writes an image file as float32 of `config.shape` to `out`. Raises BadImage."""
    picture = decode(data, max_pixels=config.max_pixels, shorter_side=config.resize, is_exact=config.is_exact)
    normalize(crop(picture, config), config, out)


def input_misfit(metadata: ModelMetadata, shape: tuple[int, int, int]) -> str:
    """Why a predictor does not take FP32 [n, *shape], or ""."""
    makes = f"{DATATYPE} {[-1, *shape]}"
    if len(metadata.inputs) != 1:
        return f"the predictor takes {len(metadata.inputs)} inputs, the transformer makes one: {makes}"
    found = metadata.inputs[0]
    is_fitting = len(found.shape) == 4 and all(
        size in (-1, mine) for size, mine in zip(found.shape[1:], shape, strict=True)
    )
    # An empty shape is of any rank.
    if found.datatype == DATATYPE and (is_fitting or not found.shape):
        return ""
    takes = f"{found.datatype} {list(found.shape)}"
    return (
        f"the predictor's input {found.name!r} is {takes}, the transformer makes {makes} (--size, --layout)"
    )

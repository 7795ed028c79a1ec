"""The transformer: entity ids → one Redis read → the tensor → the predictor → its outputs and what was filled in.

Ready once the features are known to fit the model and to be in Redis; from then on Redis being away is a 503 to the
requests that need it, not a reason to take every pod out of service.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from glowplug.errors import FeatureError, InferenceError
from glowplug.features.online import OnlineConfig, OnlineStore
from glowplug.features.parse import read_view
from glowplug.features.resolve import Report, resolve
from glowplug.features.view import FeatureView
from glowplug.serving import Model, PredictorClient, ServerConfig
from glowplug.wire import InferRequest, InferResponse, RequestedOutput, Tensor
from glowplug_feature_lookup.entities import entity_values, input_specs
from glowplug_feature_lookup.fit import DATATYPE, against_metadata, against_store, against_trained
from glowplug_feature_lookup.tally import Tally

log = logging.getLogger("glowplug.feature_lookup")

DEFAULT_INPUT = "input-0"
# Beside the model, where training left it; there in a pod that the predictor shares.
TRAINED_VIEW = "feature_view.yaml"


class FeatureLookup(Model):
    """Inputs: a tensor [n] for each entity of the view. Outputs: the predictor's, with the report as parameters."""

    platform = "glowplug-feature-lookup"

    def __init__(self, config: ServerConfig, view_file: Path, online: OnlineConfig) -> None:
        super().__init__(config.model_name)
        self._config = config
        self._view_file = view_file
        self._store = OnlineStore(online)
        self._predictor = PredictorClient(config.predictor)
        self._input = DEFAULT_INPUT
        self._fits = False
        self._not_ready = ""
        self._tally = Tally()

    async def load(self) -> None:
        """Read the view and hold it against the one that the model was trained on, if that is at hand.

        Raises `FeatureError`.
        """
        self._view = read_view(self._view_file)
        _check_trained(self._view, Path(self._config.model_dir) / TRAINED_VIEW)
        self.inputs = input_specs(self._view)
        log.info(
            "feature view %s: %d features, schema %s",
            self._view.name,
            len(self._view.features),
            self._view.schema_hash,
        )

    async def warmup(self) -> None:
        """Open the connections. Neither Redis nor the predictor need be there yet: readiness waits for them."""
        await self.is_ready()

    async def is_ready(self) -> bool:
        """Whether the view fits the predictor and is in Redis; asked until it is, then never again."""
        if not self._fits:
            reason = await self._misfit()
            self._fits = not reason
            if reason and reason != self._not_ready:
                log.warning("not ready: %s", reason)
            self._not_ready = reason
        return self._fits

    async def predict(self, request: InferRequest) -> InferResponse:
        """Raises `InferenceError`: 400 for entity ids that are wrong or unknown, 503 where rows are stale, Redis or
        the predictor away, or the view does not fit the model."""
        if not self._fits and not await self.is_ready():
            raise InferenceError(f"{self.name} is not ready: {self._not_ready}", code=503)
        entities = entity_values(self._view, request)
        rows = await self._store.read(self._view, entities)
        matrix, report = resolve(self._view, rows, int(time.time() * 1000), entities=entities)
        self._record(report)
        tensor = Tensor(self._input, DATATYPE, matrix.shape, matrix)
        response = await self._predictor.infer(
            InferRequest(
                self.name,
                (tensor,),
                id=request.id,
                outputs=tuple(RequestedOutput(output.name) for output in request.outputs),
            )
        )
        parameters = {**response.parameters, **report.parameters()}
        return replace(response, model_name=self.name, id=request.id, parameters=parameters)

    async def close(self) -> None:
        if line := self._tally.flush():
            log.info("%s", line)
        await self._predictor.aclose()
        await self._store.close()

    def _record(self, report: Report) -> None:
        line = self._tally.add(report, time.monotonic())
        if line:
            log.info("%s", line)

    async def _misfit(self) -> str:
        """Why the lookup cannot serve yet, or ""."""
        try:
            metadata = await self._predictor.metadata(self.name)
            if metadata is not None:
                if problem := against_metadata(self._view, metadata):
                    return problem
                self._input = metadata.inputs[0].name
            return against_store(self._view, await self._store.states(self._view))
        except InferenceError as error:
            return error.message


def _check_trained(view: FeatureView, trained: Path) -> None:
    if not trained.is_file():
        return
    problem = against_trained(view, read_view(trained))
    if problem:
        raise FeatureError(problem, hint=f"serve it with {trained}, or train the model again on this view")

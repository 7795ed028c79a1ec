"""InferenceServices on a real cluster of this computer, asked once at zero: the peers of the local machine's starts.

`benchmarks/knative.yaml` has them: the same model behind KServe's own XGBoost server and behind ours. They have no pods
when a start is measured; the pods of the start before are gone, those too that were only still draining.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from benchmarks.protocols import Caller, Request, WrongAnswer
from glowplug.cli.kube import Cluster, connect
from glowplug.spec import names

_SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
# A pod that goes waits half a minute for requests that are still on their way to it.
_ZERO_S = 300.0


@dataclass(frozen=True)
class KnativeCluster:
    """`port` is its gateway's on 127.0.0.1; `stock` and `own` are InferenceServices, `own` may be ""."""

    port: int
    kubeconfig: str
    namespace: str
    stock: str
    own: str = ""

    def first_200(self, name: str, sent: Request) -> float:
        """Milliseconds until `name` has answered rightly, from zero. Raises `WrongAnswer`, or what the API raises."""
        host = self._host(name)
        self._wait_for_zero(name)
        path = sent.path.replace("/models/m/", f"/models/{name}/")
        asked = dataclasses.replace(sent, path=path, headers={**sent.headers, "Host": host})
        caller = Caller(self.port, 0)
        began = time.perf_counter()
        try:
            caller.call(asked)
            return (time.perf_counter() - began) * 1000
        finally:
            caller.close()

    @cached_property
    def _api(self) -> Cluster:
        return connect(pathlib.Path(self.kubeconfig), None, self.namespace)

    def _host(self, name: str) -> str:
        status = self._api.get(_SERVICE.format(self.namespace, name)).get("status") or {}
        host = urlsplit(str(status.get("url", ""))).netloc
        if not host:
            raise WrongAnswer(f"InferenceService {self.namespace}/{name} has no status.url yet")
        return host

    def _wait_for_zero(self, name: str) -> None:
        label = f"{names.INFERENCE_SERVICE_LABEL}={name}"
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        until = time.monotonic() + _ZERO_S
        while self._api.get(path, labelSelector=label)["items"]:
            if time.monotonic() > until:
                raise WrongAnswer(f"{self.namespace}/{name} was not at zero within {_ZERO_S:.0f} s")
            time.sleep(0.5)

"""Every part of the machine, made and wired to the others; none of them runs yet.

Who is told of what is here, and only here: parts know each other by the small protocols that each declares.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from glowplug.activator import Activator, ActivatorConfig
from glowplug.apiserver.server import ApiServer, ApiServerConfig, State
from glowplug.controllers import Controllers, ControllersConfig
from glowplug.errors import NotFound
from glowplug.local import payload_events, responses
from glowplug.local.autoscaling import Autoscaling
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.local.eventing import Eventing
from glowplug.local.shadowing import event_of
from glowplug.local.units import install_runtimes, unit_folders
from glowplug.payloads import Payloads, PayloadsConfig
from glowplug.router import Router, RouterConfig
from glowplug.shadow import ShadowConfig, Shadows
from glowplug.spec import names
from glowplug.spec.kinds import KNATIVE_SERVICE, REVISION
from glowplug.spec.routes import RouteTable
from glowplug.supervisor.agent import Supervisor
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.images import ImageTable, discover
from glowplug.supervisor.storage import Storage

_LOG = logging.getLogger(__name__)
_POD_GRACE_S = 10.0


def api_config(config: MachineConfig, directory: DataDir) -> ApiServerConfig:
    """The API's part of the machine's configuration."""
    return ApiServerConfig(directory.root, port=config.api_port, is_tls=config.is_tls)


class Parts:
    """The parts, by name. `state` is the API's store, open."""

    def __init__(
        self, config: MachineConfig, directory: DataDir, state: State, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._directory = directory
        self._state = state
        self._clock = clock
        # What the machine says of itself; empty until it is up.
        self._description: dict[str, Any] = {}
        folders = unit_folders(config.unit_dirs)
        install_runtimes(state.objects, folders)
        self.router = Router(
            RouterConfig(
                directory.envoy, port=config.ingress_port, drain_timeout_s=config.shutdown_timeout_s
            ),
            on_pid=self._envoy_started,
        )
        self.autoscaling = Autoscaling(self.router, clock, lambda revision: _siblings(state, revision))
        self.activator = Activator(ActivatorConfig(), on_wait=self.autoscaling.waited_for)
        self.autoscaling.activator = self.activator
        self._images = discover(folders)
        self.supervisor = _supervisor(config, directory, state, self.router, self._images)
        self.shadows = Shadows(
            ShadowConfig(), notify=lambda notice: event_of(state, notice), on_pid=self.supervisor.guard
        )
        self.payloads = Payloads(
            PayloadsConfig(),
            "glowplug.local.payload_process",
            notify=lambda notice: payload_events.event_of(state, notice),
            on_pid=self.supervisor.guard,
        )
        self.eventing = Eventing(state, directory.root, config.broker_port)
        pages = {
            "traces": self.autoscaling.trace,
            "metrics": self._page_of_metrics,
            "shadows": self.shadows.page,
            **self.eventing.pages(),
        }
        self.api = ApiServer(api_config(config, directory), state, self.supervisor, pages)

    def controllers(self) -> Controllers:
        """The controllers, once the ingress has its port."""
        controllers = Controllers(
            self._state.objects,
            self._state.recorder,
            self._publish,
            self.autoscaling,
            ControllersConfig(self._ingress_url, self._config.domain, self._copy_key_of),
            self._clock,
            is_waited_for=lambda revision: revision in self.activator.held(),
            engine=self.eventing,
        )
        self.autoscaling.wake = controllers.wake
        self.eventing.wake = controllers.wake_object
        return controllers

    async def shadow(self) -> None:
        """Sends copies of requests, once the router has its sockets, until cancelled."""
        await self.shadows.run(self.router.copies_socket, self.router.shadow_socket)

    async def log_payloads(self) -> None:
        """Sends payload events, once the router has its sockets and the broker its port, until cancelled."""
        await self.payloads.run(self.router.payloads_socket, [self._ingress_url, self.eventing.url])

    def describe(self) -> dict[str, Any]:
        """What the machine says of itself, which is up."""
        guardian_pid = self.supervisor.guardian_pid
        processes = {"machine": os.getpid(), "envoy": self.router.pid, "guardian": guardian_pid}
        self._description.update(
            {
                "pid": os.getpid(),
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "data_dir": str(self._directory.root),
                "kubeconfig": str(self._directory.kubeconfig),
                "ports": {
                    "ingress": self.router.real_port,
                    "api": self.api.port,
                    "broker": self.eventing.port,
                },
                "urls": {"ingress": self._ingress_url, "api": self.api.url, "broker": self.eventing.url},
                "processes": {name: pid for name, pid in processes.items() if pid is not None},
            }
        )
        return self._description

    def _copy_key_of(self, image: str) -> str:
        unit = self._images.find(image)
        return self.router.copy_key if unit is not None and unit.copies else ""

    @property
    def _ingress_url(self) -> str:
        return f"http://127.0.0.1:{self.router.real_port}"

    def _envoy_started(self, pid: int) -> None:
        self.supervisor.guard(pid)
        self.activator.ingress_started()
        if not self._description:
            return
        self._description["processes"]["envoy"] = pid
        try:
            self._directory.describe(self._description)
        except OSError as error:
            out_of_date = self._directory.description
            _LOG.warning("%s is out of date, the machine goes on: %s", out_of_date, error)

    async def _publish(self, table: RouteTable) -> bool:
        self.activator.publish(table)
        self.router.publish(table)
        self.shadows.publish(table)
        self.payloads.publish(table)
        return await self.router.settled()

    async def _page_of_metrics(self, rest: tuple[str, ...]) -> str | None:
        if rest:
            return None
        known = self.supervisor.metrics() + self.autoscaling.metrics() + self.shadows.metrics()
        known += await payload_events.metrics(self.payloads, self.router) + self.eventing.metrics()
        return known + await responses.metrics(self.router)


def _siblings(state: State, revision: str) -> list[str]:
    """The revisions of the same InferenceService: a request for its transformer will need its predictor."""
    namespace, _, name = revision.partition("/")
    try:
        labels = state.objects.get(REVISION, namespace, name)["metadata"].get("labels") or {}
    except NotFound:
        return []
    service = labels.get(names.INFERENCE_SERVICE_LABEL)
    if not service:
        return []
    found = state.objects.list(REVISION, namespace, {names.INFERENCE_SERVICE_LABEL: service})
    component = labels.get(names.COMPONENT_LABEL)
    return [
        f"{namespace}/{other['metadata']['name']}"
        for other in found
        if (other["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL) != component
    ]


def _supervisor(
    config: MachineConfig, directory: DataDir, state: State, router: Router, images: ImageTable
) -> Supervisor:
    # The ingress has drained by then, so a pod that takes long is one whose requests nobody waits for any more.
    grace_s = min(_POD_GRACE_S, config.shutdown_timeout_s)
    settings = SupervisorConfig(
        directory.root,
        sys.executable,
        dict(os.environ),
        shutdown_grace_s=grace_s,
        has_warm_pool=config.has_warm_pool,
    )

    def resolve(namespace: str, service: str) -> str | None:
        try:
            state.objects.get(KNATIVE_SERVICE, namespace, service)
        except NotFound:
            return None
        return router.local_address(namespace, service)

    async def unrouted(pod: str) -> None:
        await router.without(pod)

    return Supervisor(
        state.objects,
        state.recorder,
        images,
        Storage(directory.root, sys.executable, settings.host_env, settings.machine_path),
        resolve,
        unrouted,
        settings,
        copying=lambda: router.copying,
    )

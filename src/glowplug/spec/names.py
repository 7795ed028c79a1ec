"""Annotations, labels and container names, each spelled once.

Those of KServe and Knative are theirs; those under `glowplug.dev/` are ours.
"""

from __future__ import annotations

# KServe
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
ENABLE_TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
INFERENCE_SERVICE_LABEL = "serving.kserve.io/inferenceservice"
COMPONENT_LABEL = "component"
STORAGE_SOURCE_URI = "internal.serving.kserve.io/storage-initializer-sourceuri"
MODEL_MOUNT_PATH = "/mnt/models"
SERVING_CONTAINER = "kserve-container"
TRANSFORMER_CONTAINER = "transformer-container"
STORAGE_INITIALIZER = "storage-initializer"

# Knative
SERVICE_LABEL = "serving.knative.dev/service"
CONFIGURATION_LABEL = "serving.knative.dev/configuration"
CONFIGURATION_GENERATION_LABEL = "serving.knative.dev/configurationGeneration"
REVISION_LABEL = "serving.knative.dev/revision"
ROUTE_LABEL = "serving.knative.dev/route"
MIN_SCALE = "autoscaling.knative.dev/min-scale"
MAX_SCALE = "autoscaling.knative.dev/max-scale"
INITIAL_SCALE = "autoscaling.knative.dev/initial-scale"
AUTOSCALING_CLASS = "autoscaling.knative.dev/class"
AUTOSCALING_METRIC = "autoscaling.knative.dev/metric"
AUTOSCALING_TARGET = "autoscaling.knative.dev/target"

# Ours: where a pod's serving container really listens, as JSON {"http": port, "grpc": port or null}; written by
# the supervisor, read by the route controller.
ENDPOINT_PORTS = "glowplug.dev/endpoint-ports"
# When a pod was decided on, in seconds since the epoch, and what its start took, phase by phase.
DECIDED_AT = "glowplug.dev/decided-at"
COLD_START = "glowplug.dev/cold-start"
COLD_START_CONDITION = "glowplug.dev/ColdStart"

# On an InferenceService or a Knative Service: by what a split knows a caller, see `affinity`.
CANARY_AFFINITY = "glowplug.dev/canary-affinity"
# On the same: which percentage of the requests the newest revision is tried on unseen, see `shadowing`; and the header
# of those requests.
SHADOW = "glowplug.dev/shadow"
SHADOW_HEADER = "x-glowplug-shadow"
# What the ingress says of a request that it copies: the service, the revision that answers, the one to be tried, and
# what to cut off its path.
COPY_SERVICE = "service"
COPY_REVISION = "revision"
COPY_SHADOW = "shadow"
COPY_PREFIX = "prefix"
# The same of one that is logged: the logger, see `logger`; and whether its answer is left out.
COPY_LOGGER = "logger"
COPY_REQUEST_ONLY = "request-only"
# Where a pod's server, which copies by itself, sends its copies, and by which headers it is asked to; holds a secret.
COPIES_ENV = "GLOWPLUG_COPIES"
# On an InferenceService: which percentage of the requests its payload loggers tell of, see `logger`.
LOGGER_SAMPLE_PERCENT = "glowplug.dev/logger-sample-percent"
# On the answer to a shadow: the milliseconds that its pod took; no number where no pod answered.
POD_TIME_HEADER = "x-glowplug-pod-ms"

# Rollouts: the first one's presence asks for them; `action` is taken and removed, `state` written, by the controller.
ROLLOUT_PREFIX = "glowplug.dev/rollout-"
ROLLOUT_STEPS = f"{ROLLOUT_PREFIX}steps"
ROLLOUT_INTERVAL = f"{ROLLOUT_PREFIX}interval"
ROLLOUT_GATES = f"{ROLLOUT_PREFIX}gates"
ROLLOUT_ACTION = f"{ROLLOUT_PREFIX}action"
ROLLOUT_STATE = f"{ROLLOUT_PREFIX}state"
# They change while a rollout goes on, so they must never reach a revision's template.
ROLLOUT_KEYS = (ROLLOUT_STEPS, ROLLOUT_INTERVAL, ROLLOUT_GATES, ROLLOUT_ACTION, ROLLOUT_STATE)

# On a predictor's pods, and so in its payload events: which version answers, see `rollout.stamps`.
VERSION = "glowplug.dev/version"

# Which revision a request is for, as Knative's ingress tells its activator.
NAMESPACE_HEADER = "knative-serving-namespace"
REVISION_HEADER = "knative-serving-revision"
# Asks a route for the revision of one of its tags; and what a pod is told of a request that none of them fits.
TAG_HEADER = "knative-serving-tag"
DEFAULT_ROUTE_HEADER = "knative-serving-default-route"
# Names a request's wait in the activator.
HOLD_HEADER = "x-glowplug-hold"
# The pod that the activator chose, `address:port`; Envoy's own name for it.
DESTINATION_HEADER = "x-envoy-original-dst-host"
# How often the ingress has tried this request; Envoy's own name for it.
ATTEMPT_HEADER = "x-envoy-attempt-count"

# Pair lock (see `pairs`): asked for by an annotation, told to the pods by environment variables, and to each other by
# headers (gRPC: metadata and trailers).
PAIR_LOCK = "glowplug.dev/pair-lock"
PAIR_ENV = "GLOWPLUG_PAIR"
TRANSFORMER_HOST_ENV = "GLOWPLUG_TRANSFORMER_HOST"
REVISION_ENV = "K_REVISION"  # Knative's
# In a request: the pair that it must meet. In a refusal: the pair that it met instead.
PAIR_HEADER = "glowplug-pair"
# In a refusal: the Knative revision that it met. In a request: it was handed on once already.
PAIR_REVISION_HEADER = "glowplug-pair-revision"
PAIR_HANDED_ON_HEADER = "glowplug-pair-handed-on"

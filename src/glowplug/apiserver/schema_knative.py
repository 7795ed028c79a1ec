"""The Knative kinds, declared in our own words: they have no Python models to read.

A declaration has the form that `schema_models` reads from generated files, so that one builder serves both. A type
ending in `!` is required. A revision's template is the part of a PodSpec that Knative lets through.
"""

from __future__ import annotations

from glowplug.apiserver.schema_models import Model, ModelField


def _model(name: str, description: str, /, **fields: tuple[str, str]) -> Model:
    parsed = {
        field: ModelField(type_text.rstrip("!"), text, type_text.endswith("!"))
        for field, (type_text, text) in fields.items()
    }
    return Model(name, description, parsed)


def _kind(name: str, description: str, has_status: bool = True) -> Model:
    status = {"status": (f"{name}Status", "What the machine observed last.")} if has_status else {}
    return _model(
        name,
        description,
        apiVersion=("str", "The version of the API that this object is written for."),
        kind=("str", "The kind of this object."),
        metadata=("V1ObjectMeta", "Name, namespace, labels and annotations."),
        spec=(f"{name}Spec", "What is wanted."),
        **status,
    )


def _status(name: str, /, **fields: tuple[str, str]) -> Model:
    return _model(
        f"{name}Status",
        f"What was observed of a {name}.",
        conditions=("list[KnativeCondition]", "The latest observations, Ready among them."),
        observedGeneration=("int", "The metadata.generation that this status was written for."),
        annotations=("dict(str, str)", "Further facts that the controller recorded."),
        **fields,
    )


_REVISION_FIELDS: dict[str, tuple[str, str]] = {
    "affinity": ("V1Affinity", "Where the pods would like to be placed."),
    "automountServiceAccountToken": ("bool", "Only false may be written."),
    "containers": (
        "list[V1Container]!",
        "One container that takes the requests, the one with ports, and its sidecars.",
    ),
    "dnsConfig": ("V1PodDNSConfig", "The pods' resolver settings."),
    "dnsPolicy": ("str", "How the pods' resolver settings are made."),
    "enableServiceLinks": ("bool", "Whether the services of the namespace become environment variables."),
    "hostAliases": ("list[V1HostAlias]", "Entries for the pods' hosts file."),
    "hostIPC": ("bool", "Use the host's IPC namespace."),
    "hostNetwork": ("bool", "Use the host's network namespace."),
    "hostPID": ("bool", "Use the host's process namespace."),
    "imagePullSecrets": ("list[V1LocalObjectReference]", "Secrets for pulling the images."),
    "initContainers": ("list[V1Container]", "Containers that finish before the others start."),
    "nodeSelector": ("dict(str, str)", "Labels that a node must have to take a pod."),
    "priorityClassName": ("str", "The priority class of the pods."),
    "runtimeClassName": ("str", "The container runtime's class."),
    "schedulerName": ("str", "The scheduler that places the pods."),
    "securityContext": ("V1PodSecurityContext", "User, group and the like for all containers of a pod."),
    "serviceAccountName": ("str", "The ServiceAccount that the pods run as."),
    "shareProcessNamespace": ("bool", "Share one process namespace among a pod's containers."),
    "tolerations": ("list[V1Toleration]", "Taints of nodes that the pods tolerate."),
    "topologySpreadConstraints": (
        "list[V1TopologySpreadConstraint]",
        "How the pods are spread over the nodes.",
    ),
    "volumes": ("list[V1Volume]", "Volumes that the containers mount."),
    "containerConcurrency": ("int", "The most requests at a time in one pod; 0, the default, sets no limit."),
    "timeoutSeconds": ("int", "The longest that a request may take, in seconds; 300 by default."),
    "responseStartTimeoutSeconds": ("int", "The longest wait for the first byte of an answer, in seconds."),
    "idleTimeoutSeconds": ("int", "The longest pause within an answer, in seconds."),
}
# Fields of a PodSpec that a cluster knows and that Knative refuses: known here, so that the refusal says so.
_REVISION_REFUSED: dict[str, tuple[str, str]] = {
    "activeDeadlineSeconds": ("int", "Not allowed by Knative."),
    "ephemeralContainers": ("list[V1EphemeralContainer]", "Not allowed by Knative."),
    "hostname": ("str", "Not allowed by Knative."),
    "nodeName": ("str", "Not allowed by Knative."),
    "overhead": ("dict(str, ResourceQuantity)", "Not allowed by Knative."),
    "preemptionPolicy": ("str", "Not allowed by Knative."),
    "priority": ("int", "Not allowed by Knative."),
    "readinessGates": ("list[V1PodReadinessGate]", "Not allowed by Knative."),
    "restartPolicy": ("str", "Not allowed by Knative."),
    "subdomain": ("str", "Not allowed by Knative."),
    "terminationGracePeriodSeconds": ("int", "Not allowed by Knative."),
}

_TEMPLATE = ("ServingRevisionTemplateSpec", "The revision that is stamped out whenever the template changes.")
_TRAFFIC = ("list[ServingTrafficTarget]", "How requests are split over revisions; percents sum to 100.")
_LATEST = {
    "latestCreatedRevisionName": ("str", "The newest revision, ready or not."),
    "latestReadyRevisionName": ("str", "The newest revision that became ready."),
}
_ADDRESSED = {
    "url": ("str", "Where the service answers."),
    "address": ("KnativeAddressable", "The address for the machine's own callers."),
    "traffic": ("list[ServingTrafficTarget]", "The split as it is in force."),
}
_CONTAINER_STATUSES = ("list[ServingContainerStatus]", "The image that each container runs.")

_SERVING = (
    _kind("ServingService", "A Knative Service: a Configuration and a Route under one name."),
    _model(
        "ServingServiceSpec", "A revision template and a traffic split.", template=_TEMPLATE, traffic=_TRAFFIC
    ),
    _status("ServingService", **_LATEST, **_ADDRESSED),
    _kind("ServingConfiguration", "A Knative Configuration: the line of revisions made from one template."),
    _model("ServingConfigurationSpec", "The template of the next revision.", template=_TEMPLATE),
    _status("ServingConfiguration", **_LATEST),
    _kind("ServingRevision", "A Knative Revision: one version of code and settings; its spec never changes."),
    _model("ServingRevisionSpec", "The pods of a revision.", **_REVISION_FIELDS, **_REVISION_REFUSED),
    _model(
        "ServingRevisionTemplateSpec",
        "Metadata and spec of the revisions made from it.",
        metadata=(
            "V1ObjectMeta",
            "Labels and annotations of the revision; autoscaling annotations belong here.",
        ),
        spec=("ServingRevisionSpec", "The pods of the revision."),
    ),
    _status(
        "ServingRevision",
        logUrl=("str", "Where the logs are."),
        containerStatuses=_CONTAINER_STATUSES,
        initContainerStatuses=_CONTAINER_STATUSES,
        actualReplicas=("int", "Pods that run now."),
        desiredReplicas=("int", "Pods that are wanted now."),
    ),
    _model(
        "ServingContainerStatus",
        "A container and the image that it runs.",
        name=("str", "The container."),
        imageDigest=("str", "The image."),
    ),
    _kind("ServingRoute", "A Knative Route: an address and the revisions behind it."),
    _model("ServingRouteSpec", "The wanted traffic split.", traffic=_TRAFFIC),
    _status("ServingRoute", **_ADDRESSED),
    _model(
        "ServingTrafficTarget",
        "A share of a route's requests.",
        tag=("str", "A name under which this target has an address of its own."),
        revisionName=("str", "The revision; excludes configurationName."),
        configurationName=("str", "The configuration whose latest ready revision is meant."),
        latestRevision=("bool", "True to follow the latest ready revision, false with a revisionName."),
        percent=("int", "The share of the requests, 0 to 100."),
        url=("str", "The tag's own address; written by the machine."),
    ),
    _kind("AutoscalingPodAutoscaler", "How many pods a revision should have; written by the machine."),
    _model(
        "AutoscalingPodAutoscalerSpec",
        "What is scaled and within which bounds.",
        containerConcurrency=("int", "The most requests at a time in one pod."),
        scaleTargetRef=("V1ObjectReference!", "What is scaled."),
        reachability=("str", "Whether a route leads to it: Reachable, Unreachable or empty."),
        protocolType=("str!", "http1 or h2c."),
    ),
    _status(
        "AutoscalingPodAutoscaler",
        serviceName=("str", "The service of the revision's pods."),
        metricsServiceName=("str", "The service of the revision's metrics."),
        desiredScale=("int", "Pods that are wanted now."),
        actualScale=("int", "Pods that run now."),
    ),
)

_SINK = ("DuckDestination", "Where events are sent.")
_DELIVERY = ("DuckDeliverySpec", "Retries and the dead letter sink.")
_OVERRIDES = ("DuckCloudEventOverrides", "Attributes that are set on every event.")
_SOURCE_STATUS = {
    "sinkUri": ("str", "The resolved address of the sink."),
    "ceAttributes": ("list[object]", "Types and sources of the events that are sent."),
}

_EVENTING = (
    _kind("EventingBroker", "A hub that events are sent to and that Triggers select from."),
    _model(
        "EventingBrokerSpec",
        "How the broker delivers.",
        config=("DuckKReference", "The object that holds the broker class's settings."),
        delivery=_DELIVERY,
    ),
    _status(
        "EventingBroker",
        address=("KnativeAddressable", "Where events are posted to."),
        deadLetterSinkUri=("str", "Where events go that could not be delivered."),
    ),
    _kind("EventingTrigger", "A subscription: the events of a broker that a subscriber gets."),
    _model(
        "EventingTriggerSpec",
        "Which events go to whom.",
        broker=("str", "The broker in the same namespace."),
        brokerRef=("DuckKReference", "The broker, where it is in another namespace."),
        filter=("EventingTriggerFilter", "Attributes that an event must have, each exactly."),
        filters=("list[EventingFilter]", "Filter expressions, all of which must hold; they exclude filter."),
        subscriber=("DuckDestination!", "Who gets the events."),
        delivery=_DELIVERY,
    ),
    _status(
        "EventingTrigger",
        subscriberUri=("str", "The resolved address of the subscriber."),
        deadLetterSinkUri=("str", "Where events go that could not be delivered."),
    ),
    _model(
        "EventingTriggerFilter",
        "Attributes of an event.",
        attributes=("dict(str, str)", "Attribute names and the values wanted."),
    ),
    _model(
        "EventingFilter",
        "One filter expression: exactly one of the fields.",
        all=("list[EventingFilter]", "All of these hold."),
        any=("list[EventingFilter]", "One of these holds."),
        exact=("dict(str, str)", "The attributes have exactly these values."),
        prefix=("dict(str, str)", "The attributes begin like this."),
        suffix=("dict(str, str)", "The attributes end like this."),
        cesql=("str", "A CloudEvents SQL expression."),
        **{"not": ("EventingFilter", "This does not hold.")},
    ),
    _kind("SourcesKafkaSource", "Kafka messages as CloudEvents."),
    _model(
        "SourcesKafkaSourceSpec",
        "Which topics are read, and where their messages go.",
        bootstrapServers=("list[str]!", "Kafka brokers, host:port."),
        topics=("list[str]!", "The topics that are read."),
        consumerGroup=("str", "The consumer group; a made one by default."),
        consumers=("int", "Consumers in the group."),
        initialOffset=("str", "earliest or latest, where the group has no offset yet."),
        ordering=("str", "ordered or unordered."),
        net=("SourcesKafkaNet", "TLS and SASL."),
        delivery=_DELIVERY,
        sink=_SINK,
        ceOverrides=_OVERRIDES,
    ),
    _model(
        "SourcesKafkaNet",
        "How the brokers are reached.",
        sasl=("object", "enable, and references to user, password and type."),
        tls=("object", "enable, and references to cert, key and caCert."),
    ),
    _status("SourcesKafkaSource", consumers=("int", "Consumers that run."), **_SOURCE_STATUS),
    _kind("SourcesPingSource", "An event on a schedule."),
    _model(
        "SourcesPingSourceSpec",
        "When which event is sent.",
        schedule=("str", "A cron line; every minute by default."),
        timezone=("str", "The zone that the schedule is meant in."),
        contentType=("str", "The content type of data."),
        data=("str", "The event's data."),
        dataBase64=("str", "The event's data as base64; excludes data."),
        sink=_SINK,
        ceOverrides=_OVERRIDES,
    ),
    _status("SourcesPingSource", **_SOURCE_STATUS),
    _kind("SinksJobSink", "A Job for every event that arrives."),
    _model("SinksJobSinkSpec", "The Job that is made.", job=("V1Job", "The Job's template.")),
    _status(
        "SinksJobSink",
        address=("KnativeAddressable", "Where events are posted to."),
        job=("SinksJobStatus", "Where the Jobs are."),
    ),
    _model(
        "SinksJobStatus",
        "How the Jobs that were made are found.",
        selector=("str", "The label that they all have."),
    ),
    _model(
        "DuckKReference",
        "A reference to an object.",
        apiVersion=("str", "Group and version."),
        kind=("str", "The kind."),
        namespace=("str", "The namespace; that of the referrer by default."),
        name=("str", "The name."),
        group=("str", "The group, where no version is meant."),
        address=("str", "Which of several addresses of the object."),
    ),
    _model(
        "DuckDestination",
        "Where something is sent: an object that has an address, a URI, or a URI relative to the object.",
        ref=("DuckKReference", "The object."),
        uri=("str", "The URI."),
        CACerts=("str", "Certificates to trust, as PEM."),
        audience=("str", "The audience of the token."),
    ),
    _model(
        "DuckDeliverySpec",
        "Retries and the dead letter sink.",
        deadLetterSink=("DuckDestination", "Where events go that could not be delivered."),
        retry=("int", "Attempts after the first."),
        timeout=("str", "The longest that one attempt may take, as an ISO 8601 duration."),
        backoffPolicy=("str", "linear or exponential."),
        backoffDelay=("str", "The pause before a retry, as an ISO 8601 duration."),
        retryAfterMax=("str", "The longest Retry-After that is heeded, as an ISO 8601 duration."),
        format=("str", "json or binary."),
    ),
    _model(
        "DuckCloudEventOverrides",
        "Attributes that are set on every event.",
        extensions=("dict(str, str)", "Extension attributes and their values."),
    ),
)

DECLARED: dict[str, Model] = {model.name: model for model in (*_SERVING, *_EVENTING)}

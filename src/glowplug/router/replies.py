"""What Envoy itself answers when no model can, pure.

Every such answer is JSON, `{"error": "..."}` as KServe's servers write it, with `Retry-After` on a 503. A gRPC call
gets the same words as its `grpc-message`; Envoy turns the HTTP status into the gRPC one.
"""

from __future__ import annotations

from glowplug.router.clusters import METADATA, Resource

# On an answer of the activator's listener: the pod that was chosen did not answer, so another one may be tried.
UNREACHED = "x-glowplug-unreached"

_REVISION = f"%METADATA(CLUSTER:{METADATA}:revision)%"
_PODS = "kubectl get pods -A -L serving.knative.dev/revision"
_ITS_OWN_WORDS = "%LOCAL_REPLY_BODY%"

_NOT_FOUND = (
    "nothing is served at %REQ(:AUTHORITY)%%PATH(NQ:ORIG_OR_PATH)%; see: kubectl get inferenceservices -A"
)
# By Envoy's response flags: no healthy upstream, no cluster; overflow of the queue; connection failure; closed.
# See https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
_UNAVAILABLE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("UH", "NC"), f"revision {_REVISION} has no ready replica; see: {_PODS}"),
    (("UO",), f"the queue of revision {_REVISION} is full; retry later, or raise its maxReplicas"),
    (("UF",), f"no pod of revision {_REVISION} takes connections; see: {_PODS}"),
    (
        ("UC",),
        f"a pod of revision {_REVISION} closed the connection before it answered; it may or may not have done "
        f"the request; see: {_PODS}",
    ),
)


def local_reply(*, is_before_retry: bool = False) -> Resource:
    """The `local_reply_config` of every listener; the first mapper that fits is taken.

    Of the listener whose answers another one may retry, `is_before_retry`, those that say so carry `UNREACHED`.
    """
    mappers = [*_mappers(_flags(("NR",)), _NOT_FOUND, [])]
    for flags, message in _UNAVAILABLE:
        is_unreached = is_before_retry and flags in (("UF",), ("UC",))
        headers = [*_RETRY_AFTER, *_UNREACHED] if is_unreached else _RETRY_AFTER
        mappers += _mappers(_flags(flags), message, headers)
    # The answers that a route holds, and those of Envoy that are left.
    mappers += _mappers(_is_503(), _ITS_OWN_WORDS, _RETRY_AFTER)
    mappers.append(_mapper([_IS_GRPC], _text(_ITS_OWN_WORDS)))
    return {"mappers": mappers, "body_format": _json(_ITS_OWN_WORDS)}


_IS_GRPC: Resource = {
    "header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}
}
_RETRY_AFTER = [
    {"header": {"key": "retry-after", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
]
_UNREACHED = [{"header": {"key": UNREACHED, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def _mappers(only: Resource, message: str, headers: list[Resource]) -> list[Resource]:
    """For gRPC, which gets no `retry-after`, and for the rest."""
    for_grpc, rest = _mapper([only, _IS_GRPC], _text(message)), _mapper([only], _json(message))
    if headers:
        rest["headers_to_add"] = headers
    if UNREACHED in (header["header"]["key"] for header in headers):
        for_grpc["headers_to_add"] = _UNREACHED
    return [for_grpc, rest]


def _mapper(filters: list[Resource], body: Resource) -> Resource:
    only = filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}}
    return {"filter": only, "body_format_override": body}


def _json(message: str) -> Resource:
    return {"json_format": {"error": message}}


def _text(message: str) -> Resource:
    return {"text_format_source": {"inline_string": message}}


def _flags(flags: tuple[str, ...]) -> Resource:
    return {"response_flag_filter": {"flags": list(flags)}}


def _is_503() -> Resource:
    value = {"default_value": 503, "runtime_key": "glowplug.retry_after_status"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}

"""What Envoy itself answers when no model can, pure.

Every such answer is JSON, `{"error": "..."}` as KServe's servers write it, with `Retry-After` on a 503. A gRPC call
gets the same words as its `grpc-message`; Envoy turns the HTTP status into the gRPC one.
"""

from __future__ import annotations

from glowplug.router.clusters import METADATA, Resource

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


def local_reply() -> Resource:
    """The `local_reply_config` of every listener; the first mapper that fits is taken."""
    mappers = [*_mappers(_flags(("NR",)), _NOT_FOUND, retry=False)]
    for flags, message in _UNAVAILABLE:
        mappers += _mappers(_flags(flags), message, retry=True)
    # The answers that a route holds, and those of Envoy that are left.
    mappers += _mappers(_is_503(), _ITS_OWN_WORDS, retry=True)
    mappers.append(_mapper([_IS_GRPC], _text(_ITS_OWN_WORDS)))
    return {"mappers": mappers, "body_format": _json(_ITS_OWN_WORDS)}


_IS_GRPC: Resource = {
    "header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}
}
_RETRY_AFTER = [
    {"header": {"key": "retry-after", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
]


def _mappers(only: Resource, message: str, *, retry: bool) -> list[Resource]:
    rest = _mapper([only], _json(message))
    if retry:
        rest["headers_to_add"] = _RETRY_AFTER
    return [_mapper([only, _IS_GRPC], _text(message)), rest]


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

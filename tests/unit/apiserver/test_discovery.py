"""Discovery: both forms say the same, and what they say is routed."""

from __future__ import annotations

import pytest

from glowplug.apiserver import discovery, routes
from glowplug.errors import NotFound
from glowplug.spec.kinds import KINDS


def legacy() -> set[tuple[str, str, str, tuple[str, ...]]]:
    groups = {
        (one["name"], version["version"])
        for one in discovery.api_groups()["groups"]
        for version in one["versions"]
    }
    return {
        (group, version, one["name"], tuple(one["verbs"]))
        for group, version in {("", "v1"), *groups}
        for one in discovery.api_resources(group, version)["resources"]
    }


def aggregated() -> set[tuple[str, str, str, tuple[str, ...]]]:
    found = set()
    for is_core in (True, False):
        for group in discovery.aggregated(is_core=is_core)["items"]:
            for version in group["versions"]:
                for one in version["resources"]:
                    key = (group["metadata"].get("name", ""), version["version"])
                    found.add((*key, one["resource"], tuple(one["verbs"])))
                    for sub in one.get("subresources", ()):
                        found.add((*key, f"{one['resource']}/{sub['subresource']}", tuple(sub["verbs"])))
    return found


def test_both_forms_agree() -> None:
    assert legacy() == aggregated()


def test_every_kind_is_there_with_its_names() -> None:
    for kind in KINDS:
        resources = discovery.api_resources(kind.group, kind.version)["resources"]
        (found,) = [one for one in resources if one["name"] == kind.plural]
        assert found["kind"] == kind.name
        assert found["namespaced"] == kind.is_namespaced
        assert tuple(found.get("shortNames", ())) == kind.short_names
        assert tuple(found.get("categories", ())) == kind.categories


def test_everything_discovered_has_a_route() -> None:
    for group, version, name, verbs in legacy():
        if verbs == ("create",):
            continue
        plural, _, subresource = name.partition("/")
        kind = next(one for one in KINDS if (one.group, one.plural) == (group, plural))
        prefix = ("apis", group, version) if group else ("api", version)
        scope = ("namespaces", "ns") if kind.is_namespaced else ()
        path = (*prefix, *scope, plural, "thing", *((subresource,) if subresource else ()))
        target = routes.resource(path)
        assert (target.kind, target.name, target.subresource) == (kind, "thing", subresource)
        assert routes.resource((*prefix, plural)).name == ""


def test_stable_versions_are_preferred() -> None:
    group = discovery.api_group("serving.kserve.io")
    assert group["preferredVersion"]["version"] == "v1beta1"
    assert [one["version"] for one in group["versions"]] == ["v1beta1", "v1alpha1"]


def test_what_is_not_there() -> None:
    with pytest.raises(NotFound):
        discovery.api_group("apps")
    with pytest.raises(NotFound):
        discovery.api_resources("serving.kserve.io", "v1")


def test_version_has_the_form_that_clients_parse() -> None:
    found = discovery.version()
    assert found["gitVersion"].startswith(f"v{found['major']}.{found['minor']}.")

"""Which components take part in a rollout, and which of their revisions is the canary. Pure.

Only components with a new revision are members. A split over one revision tells KServe that this revision was taken
back, and it goes back to the one before (PropagateStatus in inference_service_status.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .observation import Component, Observation
from .state import Member, Phase, State


def begin(state: State, seen: Observation, before: Mapping[str, str], now: float) -> State:
    """A rollout from the beginning: `before` has, for each component that changes, its latest revision until now.

    A component that has never had all traffic gives it to its first revision, so it is none of ours. Without any
    member the state stays as it is.
    """
    members = {}
    for name, component in seen.components.items():
        if not component.rolled_out:
            continue
        if name in before:
            members[name] = Member(component.rolled_out, before[name])
        elif name in state.members and is_unfinished(state) and component.created != component.rolled_out:
            # It changed in the rollout that ends here, and has not been promoted.
            members[name] = Member(component.rolled_out, component.rolled_out)
    if not members.keys() & before.keys():
        return state
    fresh = State(Phase.STARTING, members, weight=0, since=now, started=now, news=state.news)
    stable = ", ".join(member.stable for member in members.values())
    verb = "starts over" if state.is_active else "starts"
    return fresh.telling(
        "RolloutStarted", f"a rollout {verb}: {stable} keeps all requests until the new version is ready"
    )


def unforeseen(state: State, seen: Observation) -> dict[str, str]:
    """Components with a new revision that this state does not know of, and the latest one that it does know of."""
    found = {}
    for name, component in seen.components.items():
        if not component.rolled_out or component.created in ("", component.rolled_out):
            continue
        member = state.members.get(name)
        if member is not None and state.is_active and not member.canary:
            continue  # awaited
        known = (member.canary if member is not None else "") or component.rolled_out
        if component.created != known and known not in component.twins:
            found[name] = known
    return found


def with_twins(state: State, seen: Observation) -> State:
    """With the new revisions of what is the canary, as a change of its scale or its annotations makes one: the rollout
    goes on with them, and what is said of it (that it was rolled back, say) goes for them too."""
    members = {
        name: replace(member, canary=of(seen, name).created)
        if member.canary in of(seen, name).twins
        else member
        for name, member in state.members.items()
    }
    return replace(state, members=members)


def questions(state: State, seen: Observation) -> dict[str, set[str]]:
    """Components whose latest revision may run the same as another one, and those others."""
    found = {name: {known} for name, known in unforeseen(state, seen).items()}
    for name in lost(state, seen):
        found.setdefault(name, set()).add(of(seen, name).rolled_out)
    return found


def is_unfinished(state: State) -> bool:
    """Whether the latest revision of the members was not promoted: it goes on, or was rolled back."""
    return state.is_active or state.phase is Phase.ROLLED_BACK


def is_overtaken(state: State, seen: Observation) -> bool:
    """Whether what has all traffic of every member is newer than its canary: somebody else gave it to it."""
    return all(
        member.canary and of(seen, name).rolled_out == of(seen, name).created != member.canary
        for name, member in state.members.items()
    )


def lost(state: State, seen: Observation) -> dict[str, str]:
    """Components of which KServe has forgotten the stable revision, and that revision.

    Between the split and the new revision there is a moment in which the split is over one revision. A KServe that
    looks just then goes back to the revision before, which would get the stable one's requests.
    """
    return {
        name: member.stable
        for name, member in state.members.items()
        if is_unfinished(state)
        and of(seen, name).created == member.canary != ""
        and of(seen, name).rolled_out not in (member.stable, member.canary, "", *of(seen, name).twins)
    }


def percents(state: State, seen: Observation) -> dict[str, int | None]:
    """`canaryTrafficPercent` by component, where it is not as it should be."""
    wanted = {name: state.weight if name in state.members else None for name in seen.components}
    return {name: percent for name, percent in wanted.items() if seen.components[name].percent != percent}


def has_rolled_out(state: State, seen: Observation) -> bool:
    """Whether every member's canary has all its traffic."""
    return all(
        member.canary and of(seen, name).rolled_out == member.canary for name, member in state.members.items()
    )


def with_canaries(state: State, seen: Observation) -> State:
    """With the canaries that are there by now."""
    members = {}
    for name, member in state.members.items():
        created = of(seen, name).created
        members[name] = replace(member, canary=created if created != member.before else "")
    return replace(state, members=members)


def without_unchanged(state: State, seen: Observation) -> State:
    """Without the members whose traffic was split as asked while no new revision came: they stay as they are.

    One whose latest revision never had all traffic, since it failed or was on its way, must not get it by that: this
    revision is its canary again.
    """
    members = {}
    for name, member in state.members.items():
        if member.canary or not of(seen, name).is_split:
            members[name] = member
        elif member.before != member.stable:
            members[name] = Member(member.stable, member.stable, member.before)
    return replace(state, members=members)


def of(seen: Observation, name: str) -> Component:
    """The component as it is seen; one that has left the spec has nothing."""
    return seen.components.get(name, Component())

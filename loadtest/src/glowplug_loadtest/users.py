"""locust users: V2 REST and V2 gRPC, for the flights' entity ids as for the rows of a file.

Each is one sender that works off its shape's schedule; locust's own statistics and web page see every request, with
the latency from its due time.
"""

from __future__ import annotations

import time
import types
from collections.abc import Sequence
from typing import ClassVar

import gevent
from locust import User, task
from locust.exception import StopUser

from glowplug.errors import InferenceError
from glowplug_loadtest.arrivals import due_times
from glowplug_loadtest.bodies import Body
from glowplug_loadtest.calls import Caller
from glowplug_loadtest.open_loop import OpenLoop
from glowplug_loadtest.plan import GRPC, REFERENCE, REST, Plan
from glowplug_loadtest.records import Record

_TELL_EVERY_S = 0.5


class V2User(User):
    """One sender; `prepared` makes the class that can run.

    `index` is its number among `plan.workers`, `start_at` the beginning on the monotonic clock, which all processes of
    a computer share; 0 is now.
    """

    abstract = True
    protocol: ClassVar[str]
    plan: ClassVar[Plan]
    caller: ClassVar[Caller]
    index: ClassVar[int]
    start_at: ClassVar[float]
    records: ClassVar[list[Record]]
    loop: ClassVar[OpenLoop]

    @classmethod
    def prepared(cls, plan: Plan, bodies: Sequence[Body], index: int) -> type[V2User]:
        """This class for one sender. Takes the references where the plan wants them; raises InferenceError."""
        caller = Caller(plan, bodies)
        if plan.check == REFERENCE:
            caller.take_references()
        records: list[Record] = []
        loop = OpenLoop(caller.send, plan.max_in_flight // plan.workers, plan.timeout_s, records.append)
        fields = {
            "plan": plan,
            "caller": caller,
            "index": index,
            "start_at": 0.0,
            "records": records,
            "loop": loop,
        }
        made: type[V2User] = types.new_class(
            cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(fields, abstract=False)
        )
        return made

    @task
    def work_off_the_schedule(self) -> None:
        """All of it; then the shape is over."""
        plan, told = self.plan, _Told(self)
        arrivals = due_times(plan.profile, plan.arrivals, plan.seed, index=self.index, of=plan.workers)
        teller = gevent.spawn(told.run)
        try:
            self.loop.run(arrivals, self.start_at or time.monotonic(), plan.profile.duration_s)
        finally:
            teller.kill()
            told.tell()
            self.environment.shape_class.is_over = True
        raise StopUser


class V2RestUser(V2User):
    """POSTs /v2/models/NAME/infer."""

    abstract = True
    protocol = REST


class V2GrpcUser(V2User):
    """Calls inference.GRPCInferenceService/ModelInfer."""

    abstract = True
    protocol = GRPC


def user_of(plan: Plan) -> type[V2User]:
    """By the plan's protocol."""
    return V2GrpcUser if plan.protocol == GRPC else V2RestUser


class _Told:
    """Passes the records on to locust, apart from the sending: its statistics must cost no request its punctuality."""

    def __init__(self, user: V2User) -> None:
        self._user = user
        self._count = 0

    def run(self) -> None:
        while True:
            gevent.sleep(_TELL_EVERY_S)
            self.tell()

    def tell(self) -> None:
        plan, records = self._user.plan, self._user.records
        first, self._count = self._count, len(records)
        for record in records[first : self._count]:
            self._user.environment.events.request.fire(
                request_type=f"V2 {plan.protocol}",
                name=plan.model,
                response_time=(record.done_s - record.due_s) * 1000,
                response_length=0,
                exception=InferenceError(record.error) if record.error else None,
                context={},
            )

"""The table of /consumers: instances, what they read, what they committed."""

from collections.abc import Callable

from psubd.endpoints.confluent.committing import Committing
from psubd.endpoints.confluent.instances import MAX_BODY, Admit, Instances
from psubd.endpoints.confluent.reading import Reading
from psubd.interfaces import IConsumers, IExchange, Route

ONE = "/consumers/{group}/instances/{instance}"


def instance_routes(admit: Admit, consumers: IConsumers, base: Callable[[IExchange], str], *, timeout_ms: int, max_bytes: int) -> list[Route]:
    """:param admit: who subscribes. :param base: the URL that a client reached us by. :param timeout_ms: how long a read waits where its instance
    does not say. :param max_bytes: payload that an answer may have at most."""
    made, read, kept = Instances(admit, consumers, base, timeout_ms), Reading(admit, consumers, max_bytes), Committing(admit, consumers)
    return [
        Route("POST", "/consumers/{group}", made.create, "createInstance", MAX_BODY, gzip=True),
        Route("DELETE", ONE, made.delete, "deleteInstance"),
        Route("POST", f"{ONE}/subscription", made.subscribe, "subscribeInstance", MAX_BODY, gzip=True),
        Route("GET", f"{ONE}/subscription", made.subscription, "getSubscription"),
        Route("DELETE", f"{ONE}/subscription", made.unsubscribe, "unsubscribeInstance"),
        Route("POST", f"{ONE}/assignments", made.assign, "assignInstance", MAX_BODY, gzip=True),
        Route("GET", f"{ONE}/assignments", made.assignments, "getAssignments"),
        Route("POST", f"{ONE}/positions", made.seek, "seekInstance", MAX_BODY, gzip=True),
        Route("POST", f"{ONE}/positions/beginning", made.to_beginning, "seekInstanceToBeginning", MAX_BODY, gzip=True),
        Route("POST", f"{ONE}/positions/end", made.to_end, "seekInstanceToEnd", MAX_BODY, gzip=True),
        Route("GET", f"{ONE}/records", read.records, "readInstance"),
        Route("GET", f"{ONE}/topics/{{topic}}", read.topic, "readInstanceTopic"),
        Route("POST", f"{ONE}/offsets", kept.commit, "commitInstance", MAX_BODY, gzip=True),
        Route("GET", f"{ONE}/offsets", kept.committed, "getInstanceOffsets", MAX_BODY, gzip=True),
    ]

"""``/metrics``: what a Prometheus server scrapes."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from psubd.interfaces import Route
from psubd.manager.doc import SCRAPERS, Doc, Reply
from psubd.manager.guard import Guard
from psubd.manager.visit import Visit
from psubd.model import Answer

OPENMETRICS = "application/openmetrics-text"


class Metrics:
    def __init__(self, guard: Guard, collectors: CollectorRegistry) -> None:
        self._guard, self._collectors = guard, collectors

    def routes(self) -> list[Route]:
        doc = Doc(
            "probes",
            "Metrics, as text or OpenMetrics by what is accepted",
            {200: Reply("The metrics.", media=("text/plain", OPENMETRICS))},
            roles=SCRAPERS,
            fresh=False,
        )
        return [self._guard.route("GET", "/metrics", self.scrape, "metrics", doc)]

    async def scrape(self, visit: Visit) -> Answer:
        # The versions that the client names are the library's to weigh; the choice between the two formats was made by quality already.
        accept = (visit.exchange.header(b"accept") or b"").decode("latin-1")
        wanted = [part for part in accept.split(",") if part.split(";")[0].strip().lower() == visit.media]
        encode, content_type = choose_encoder(",".join(wanted))
        return Answer(body=encode(self._collectors), headers=[(b"content-type", content_type.encode())])

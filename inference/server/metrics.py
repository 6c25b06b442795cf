"""Prometheus metrics, and the ASGI middleware that counts requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from ..network.request_guard import Application, Message, Receive, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server and its process, in their own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # they would add a series to each counter
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "prip_requests", "Requests, by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "prip_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge("prip_requests_in_progress", "Requests not yet answered", registry=self.registry)
        self.prompts = Counter("prip_prompts", "User prompts answered", ["route"], registry=self.registry)
        self.refused = Counter(
            "prip_refused", "Requests refused because the queue was full or the time too short", registry=self.registry
        )
        self.refine_batch = self._sizes("prip_refine_batch_size", "Prompts refined in one batch")
        self.draw_batch = self._sizes("prip_draw_batch_size", "Images drawn in one batch")
        self.queued = Gauge(
            "prip_queue_depth", "Prompts or images waiting in the queue", ["queue"], registry=self.registry
        )

    def follow_queue(self, queue: str, waiting: Callable[[], int]) -> None:
        """Report the depth of a queue as returned by `waiting` at the time of a scrape."""
        self.queued.labels(queue).set_function(waiting)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _sizes(self, name: str, documentation: str) -> Histogram:
        return Histogram(name, documentation, buckets=SIZES, registry=self.registry)


class Counted:
    """ASGI middleware that counts and times requests; paths other than `routes` count as "other"."""

    def __init__(self, application: Application, metrics: Metrics, routes: Collection[str]) -> None:
        self.application = application
        self.metrics = metrics
        self.routes = frozenset(routes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self.routes else "other"
        status = 0
        began = time.perf_counter()

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.metrics.in_progress.track_inprogress():
            try:
                await self.application(scope, receive, send_counted)
            finally:
                self.metrics.requests.labels(route, str(status or "none")).inc()
                self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

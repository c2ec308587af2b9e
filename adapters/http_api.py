"""The HTTP side put together: health, state, pictures, and the routes of all others (section 4).

Everything is served on one port. What is about one thing has a module of its own and comes as
further routes; the checks, limits and error form here hold for them, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from aiohttp import hdrs, web

from adapters.access import (
    AccessPolicy,
    HttpLimits,
    access_check,
    cross_origin_headers,
    open_to_all,
    shown_tokens,
)
from adapters.answers import (
    LIVE_HEADERS,
    add_headers,
    code_of,
    errors_as_json,
    json_answer,
    plain_bodies,
    stage_of,
)
from adapters.described import Answer, Refusal, StageQuery, described
from adapters.descriptions import Descriptions
from adapters.events_post import EventsByPost
from adapters.metrics import PrometheusMetrics
from adapters.studio_page import STUDIO_DIR, Studio
from pipeline.bodies import CharactersBody, ExpressionsBody, HealthBody, ReadyBody, StateBody
from pipeline.ports import DaemonPort, Metric
from pipeline.types import ImageFormat


def build_application(
    daemon: DaemonPort,
    *,
    metrics: PrometheusMetrics,
    access: AccessPolicy,
    limits: HttpLimits | None = None,
    extra_routes: Iterable[web.AbstractRouteDef] = (),
    studio_dir: Path = STUDIO_DIR,
) -> web.Application:
    """The whole HTTP side as an aiohttp application.

    Args:
        daemon: what it is about.
        metrics: shown at `/metrics`; messages by POST are counted there.
        access: who may connect.
        limits: sizes and rates.
        extra_routes: of the other adapters.
        studio_dir: folder of the page; read once, now.
    """
    limits = limits or HttpLimits()
    application = web.Application(
        middlewares=[errors_as_json, access_check(access), plain_bodies],
        client_max_size=limits.upload_bytes,
    )
    application.on_response_prepare.append(add_headers)
    application.on_response_prepare.append(cross_origin_headers(access))
    application.add_routes(_Api(daemon, metrics, access).routes())
    application.add_routes(EventsByPost(daemon, metrics, limits).routes())
    application.add_routes(extra_routes)
    application.add_routes(Studio(studio_dir).routes())
    application.add_routes(Descriptions(code_of).routes())
    return application


class _Api:
    """The requests that ask something."""

    def __init__(
        self, daemon: DaemonPort, metrics: PrometheusMetrics, access: AccessPolicy
    ) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/v1/state", self.state),
            web.get("/v1/snapshot.jpg", self.snapshot),
            web.get("/v1/characters", self.characters),
            web.get("/expressions", self.expressions),
        ]

    @open_to_all
    @described(Answer(200, "the daemon lives", (HealthBody,)), query=StageQuery)
    async def health(self, request: web.Request) -> web.Response:
        """Whether the daemon lives, and how well; details are for those who may know them."""
        health = self._daemon.health(_stage_name(request))
        if self._access.needs_token and not self._access.knows_token(shown_tokens(request)):
            # Files and addresses are nobody else's business.
            health = {**health, "problems": [_part(each) for each in health["problems"]]}
        return json_answer(health)

    @open_to_all
    @described(
        Answer(200, "frames are being published", (ReadyBody,)),
        Refusal(503, "they are not, for the reason that the message says"),
        query=StageQuery,
    )
    async def ready(self, request: web.Request) -> web.Response:
        """Whether frames are being published."""
        reason = self._daemon.not_ready_reason(_stage_name(request))
        if reason is not None:
            raise web.HTTPServiceUnavailable(text=reason)
        body: ReadyBody = {"status": "ready"}
        return json_answer(body)

    @described(Answer(200, "every metric", content=("text/plain",)))
    async def metrics(self, request: web.Request) -> web.Response:
        """Figures in Prometheus' text format."""
        self._metrics.set(Metric.TASKS, len(asyncio.all_tasks()))
        text = await asyncio.to_thread(self._metrics.render)
        headers = {**LIVE_HEADERS, hdrs.CONTENT_TYPE: self._metrics.content_type}
        return web.Response(body=text, headers=headers)

    @described(
        Answer(200, "the stage as it is now", (StateBody,)),
        Refusal(503, "the stage is being set up"),
        query=StageQuery,
        tag="Viewers",
    )
    async def state(self, request: web.Request) -> web.Response:
        """What is on the face, and what is coming."""
        return json_answer(stage_of(self._daemon, request).snapshot())

    @described(
        Answer(200, "a picture", content=(ImageFormat.JPEG.content_type,)),
        Refusal(503, "no frame has been published yet"),
        query=StageQuery,
        tag="Viewers",
    )
    async def snapshot(self, request: web.Request) -> web.Response:
        """The newest frame."""
        newest = await stage_of(self._daemon, request).picture(ImageFormat.JPEG)
        if newest is None:
            reason = (
                self._daemon.not_ready_reason(_stage_name(request))
                or "no frame has been published yet"
            )
            raise web.HTTPServiceUnavailable(text=reason)
        _, image = newest
        return web.Response(
            body=image, content_type=ImageFormat.JPEG.content_type, headers=LIVE_HEADERS
        )

    @described(
        Answer(200, "the characters and which is on", (CharactersBody,)),
        query=StageQuery,
        tag="Characters",
    )
    async def characters(self, request: web.Request) -> web.Response:
        """Who can be shown."""
        return json_answer(self._daemon.characters(_stage_name(request)))

    @described(
        Answer(200, "the labels and the range of intensities", (ExpressionsBody,)),
        query=StageQuery,
    )
    async def expressions(self, request: web.Request) -> web.Response:
        """Which emotions can be shown."""
        self._check_stage(request)
        body: ExpressionsBody = {
            "expressions": list(self._daemon.expressions()),
            "intensities": {"min": 0.0, "max": 1.0},
        }
        return json_answer(body)

    def _check_stage(self, request: web.Request) -> None:
        """The same for every stage, and there before the first; a wrong name is wrong."""
        if "stage" in request.query:
            stage_of(self._daemon, request)


def _stage_name(request: web.Request) -> str | None:
    return request.query.get("stage")


def _part(problem: str) -> str:
    """Of `part: what is wrong`, the part."""
    return problem.partition(":")[0]

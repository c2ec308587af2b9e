"""The HTTP half of the composition root: names every endpoint, and serves them together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adapters.access import AccessPolicy, HttpLimits
from adapters.characters_api import CharactersEndpoint
from adapters.events_ws import EventsEndpoint
from adapters.frames_ws import FramesEndpoint
from adapters.http_api import build_application
from adapters.listening import HttpServer, serve
from adapters.metrics import PrometheusMetrics
from adapters.mjpeg import MjpegEndpoint
from adapters.portrait_fetch import PortraitFetcher, Reach
from adapters.render_api import RenderEndpoint
from adapters.sheet_api import SheetEndpoint
from adapters.stages_api import StagesEndpoint
from adapters.tls import Certificate
from adapters.viewer import Audience
from adapters.vmc import check_host
from adapters.ws_throttle import FRAMES_PER_S
from orchestrator.front_desk import FrontDesk, there
from orchestrator.process import most_connections
from orchestrator.settings import Settings

HTTP_STOP_S: Final = 0.5


def access_policy(settings: Settings) -> AccessPolicy:
    """Who may connect.

    Raises:
        ConfigError: `auth.token` is missing where it is needed, or `vmc.host` is open to others.
    """
    if settings.vmc.port:
        check_host(settings.vmc.host, anybody=settings.auth.mode == "none")
    return AccessPolicy(
        host=settings.server.host,
        token=settings.auth.token,
        mode=settings.auth.mode,
        origins=settings.auth.allowed_origins,
        hosts=settings.auth.allowed_hosts,
    )


def certificate(settings: Settings) -> Certificate | None:
    """What TLS is served with; None where it is not.

    Raises:
        ConfigError: the files of `server.tls_cert` and `server.tls_key` cannot be used.
    """
    if not settings.server.tls_cert:
        return None
    key = settings.server.tls_key
    return Certificate(
        Path(settings.server.tls_cert).expanduser(), Path(key).expanduser() if key else None
    )


class HttpSide:
    """Producers, viewers and everybody else, behind one port.

    Args:
        desk: answers for the daemon; what it has not got yet is refused with `not_ready`.

    Attributes:
        audience: all viewers.
        events: all producers.
        fetcher: gets portraits by their address.
        limits: of what producers send, by whatever way.
    """

    def __init__(self, settings: Settings, desk: FrontDesk, metrics: PrometheusMetrics) -> None:
        self._settings = settings
        self._desk = desk
        self._metrics = metrics
        self.limits = HttpLimits(
            message_bytes=settings.limits.message_bytes,
            messages_per_s=settings.limits.messages_per_s,
            producers=settings.limits.producers,
            upload_bytes=settings.limits.upload_bytes,
        )
        self.audience = Audience(
            metrics, limit=settings.limits.viewers, stall_s=settings.stage.viewer_stall_s
        )
        self.events = EventsEndpoint(desk, metrics=metrics, limits=self.limits)
        self.fetcher = PortraitFetcher(
            Reach(settings.characters.fetch),
            max_bytes=settings.limits.upload_bytes,
            total_s=settings.characters.fetch_s,
        )

    async def serve(self, tls: Certificate | None) -> HttpServer:
        """Listen, and serve until the returned server is closed.

        Raises:
            ConfigError: the settings' address or access rules cannot be used.
            PortTakenError: another process listens there.
        """
        settings, desk = self._settings, self._desk
        endpoints = (
            self.events,
            FramesEndpoint(desk, self.audience),
            MjpegEndpoint(desk, self.audience),
            RenderEndpoint(lambda: there(desk.pictures), self.limits),
            CharactersEndpoint(lambda: there(desk.cast), self.fetcher, self.limits),
            SheetEndpoint(lambda: there(desk.sheets)),
            StagesEndpoint(lambda: desk, self.limits),
        )
        application = build_application(
            desk,
            metrics=self._metrics,
            access=access_policy(settings),
            limits=self.limits,
            extra_routes=[route for each in endpoints for route in each.routes()],
        )
        return await serve(
            application,
            settings.server.host,
            settings.server.port,
            tcp_user_timeout_s=settings.server.tcp_user_timeout_s,
            shutdown_s=HTTP_STOP_S,
            tls=None if tls is None else tls.context,
            most=most_connections(settings.limits),
            # Of fragments and pings there may be more than of messages; so many more that who
            # floods a producer's connection is found out by its messages first.
            frames_per_s=max(FRAMES_PER_S, 5.0 * settings.limits.messages_per_s),
        )


def where_to_look(settings: Settings, port: int) -> str:
    """What a person at the terminal is told once the daemon serves."""
    host = settings.server.host
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    scheme = "https" if settings.server.tls_cert else "http"
    address = f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"
    token = "-H 'Authorization: Bearer <token>' " if settings.auth.token else ""
    return (
        f"\n  Watch the face:  {address}/\n  Make it smile:   "
        f'curl {token}-d \'{{"type":"emotion","emotion":"happy"}}\' '
        f"{address}/v1/events\n\n"
    )

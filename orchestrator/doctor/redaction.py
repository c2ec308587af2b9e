"""Keeps secrets out of the report: by their values, and by what secrets usually look like.

No section shows a token knowingly. But errors quote addresses, logs quote requests, and other
programs' output is not ours, so every word of a report passes here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from orchestrator.doctor.report import Diagnosis
from orchestrator.settings import Settings

HIDDEN: Final = "***"
# A shorter value stands in ordinary words by chance, and guards nothing.
_SHORTEST: Final = 4
_SECRET_NAME: Final = re.compile(r"(?i)token|password|passwd|secret|api_?key|credential")
_PATTERNS: Final = (
    (re.compile(r"(?i)([?&;][\w-]*(?:token|password|secret|key|auth|sig)=)[^&\s\"'<>]+"), r"\1"),
    (re.compile(r"(://)[^/@\s\"']+(?=@)"), r"\1"),
    (re.compile(r"(?i)\b(bearer[ .]|basic )[\w.~+/=!-]{4,}"), r"\1"),
)


class Redactor:
    """Replaces secrets in text.

    Args:
        secrets: values that must never be seen.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                written = json.dumps(secret)[1:-1]
                forms |= {
                    secret,
                    quote(secret, safe=""),
                    quote(secret),
                    written,
                    repr(secret)[1:-1],
                }
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        for pattern, kept in _PATTERNS:
            text = pattern.sub(kept + HIDDEN, text)
        return text

    def finding(self, finding: Diagnosis) -> Diagnosis:
        """The finding without secrets."""
        return Diagnosis(
            finding.verdict,
            self.text(finding.topic),
            self.text(finding.text),
            self.text(finding.advice),
        )


def is_secret(name: str) -> bool:
    """A setting or variable of that name holds what nobody is to see."""
    return _SECRET_NAME.search(name) is not None


def secrets_of(settings: Settings | None, config: Path, environ: Mapping[str, str]) -> set[str]:
    """Every secret that is known: of the settings, or their file, and of the environment."""
    found = {value for name, value in environ.items() if is_secret(name)}
    found |= {each for value in found for each in _quoted(value)}  # lists are as in TOML
    if settings is not None:
        found |= {settings.auth.token, settings.media_bridge.token, *settings.events.tokens}
        for address in (settings.media_bridge.url, *settings.events.connect):
            found |= set(_in_address(address))
    else:
        found |= set(_in_file(config))
    return {value for value in found if value}


def _quoted(value: str) -> Iterator[str]:
    for double, single in re.findall(r"\"([^\"]+)\"|'([^']+)'", value):
        yield double or single


def _in_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        # A name before a password is no secret; alone it may be a token.
        yield parts.password or parts.username or ""
    except ValueError:
        return


def _in_file(config: Path) -> Iterator[str]:
    try:
        text = config.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    try:
        yield from _in_table(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if is_secret(name):
                yield from _quoted(value)


def _in_table(table: Mapping[str, Any], secret: bool = False) -> Iterator[str]:
    for name, value in table.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _in_table(each, secret or is_secret(name))
            elif isinstance(each, str) and (secret or is_secret(name)):
                yield each

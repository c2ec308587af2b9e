"""`avatar-orchestrator models download|check|list`: arguments to what is done, and its status."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TextIO

from orchestrator.lifecycle import ExitStatus
from orchestrator.models.catalogue import Catalogue, bundled_catalogue, default_folder, mib
from orchestrator.models.checking import examine
from orchestrator.models.download import Download, Terminal, counted, parts_of
from orchestrator.models.hub import Hub, HubError
from orchestrator.models.manifest import read_manifest
from orchestrator.settings import Settings
from pipeline.errors import ConfigError

DECLINED: Final = 1

HubFor = Callable[[Catalogue, bool], Hub]


def models(
    settings: Settings,
    options: argparse.Namespace,
    out: TextIO,
    answers: TextIO,
    *,
    catalogue: Catalogue | None = None,
    hub_for: HubFor | None = None,
) -> int:
    """Carry out one of the sub-commands.

    Args:
        settings: say where weights are kept.
        options: `action` and what belongs to it.
        out, answers: where words go and answers to questions come from.
        catalogue: None takes the bundled one.
        hub_for: makes the hub for a catalogue, offline or not; None takes the public one or
            HF_ENDPOINT's.

    Returns:
        0; 1 when every licence was declined; EX_UNAVAILABLE when a file could not be had;
        EX_CONFIG when LivePortrait would not load.

    Raises:
        ConfigError: the folder, its manifest or the installation is to blame.
        ConsentNeededError: a licence is open, and there is no terminal to ask on.
        HubError: the hub cannot be reached or refuses.
    """
    catalogue = catalogue or bundled_catalogue()
    given = options.to if options.to or options.action == "download" else options.folder
    folder = (given.expanduser() if given else default_folder(settings)).absolute()
    if options.action == "check":
        remedy = "avatar-orchestrator models download"
        return _check(
            catalogue, folder, f"{remedy} --to {shlex.quote(str(folder))}" if given else remedy, out
        )
    if options.action == "list":
        return _list(catalogue, folder, out, hub_for or _hub)
    hub = (hub_for or _hub)(catalogue, options.offline)
    terminal = Terminal(out, answers)
    download = Download(catalogue, folder, hub, terminal, options.only, options.yes)
    with _closing_connections():
        return _download(settings, download)


def _hub(catalogue: Catalogue, offline: bool) -> Hub:
    return Hub(catalogue.repository, catalogue.revision, offline=offline)


def _download(settings: Settings, download: Download) -> int:
    say = download.terminal.say
    try:
        outcome = download.run()
    except (HubError, KeyboardInterrupt):
        say("\nstopped; what has been fetched is kept, the same command goes on from there")
        raise
    if not outcome.accepted:
        say("nothing fetched: no licence was accepted")
        return DECLINED
    if outcome.failed:
        say(f"incomplete without {counted(len(outcome.failed))}: see FAIL above")
        return ExitStatus.UNAVAILABLE
    say("complete")
    if default_folder(settings).absolute() != download.folder or not _is_set(settings):
        say("The daemon finds them with this in its configuration:\n\n[liveportrait]")
        say(f"weights_dir = {json.dumps(str(download.folder), ensure_ascii=False)}")
    return ExitStatus.OK


def _is_set(settings: Settings) -> bool:
    return bool(settings.liveportrait.weights_dir)


def _check(catalogue: Catalogue, folder: Path, remedy: str, out: TextIO) -> int:
    failed = False
    width = max(len(file.path) for file in catalogue.files)
    for finding in examine(catalogue, folder, remedy):
        failed = failed or finding.verdict == "FAIL"
        out.write(f"{finding.verdict:<4}  {finding.topic:<{width}}  {finding.text}\n")
        out.flush()
    verdict = "LivePortrait would not load: see FAIL above" if failed else "LivePortrait would load"
    out.write(f"{folder}: {verdict}\n")
    return ExitStatus.CONFIG if failed else ExitStatus.OK


def _list(catalogue: Catalogue, folder: Path, out: TextIO, hub_for: HubFor) -> int:
    manifest = read_manifest(folder)
    hub: Hub | None = None
    with contextlib.suppress(ConfigError):  # without huggingface_hub there is no cache of its
        hub = hub_for(catalogue, True)
    source = hub.address if hub else catalogue.repository
    out.write(f"folder  {folder}\nsource  {source}, {catalogue.revision}\n")
    for name, each in catalogue.sets.items():
        answer = {True: "accepted", False: "declined", None: "not asked yet"}
        out.write(f"\n{name}: {each.title}. {each.licence_text}\n")
        out.write(f"  licence: {answer[manifest.licences.get(name)]}, {each.url}\n")
        for file in catalogue.of(name):
            size, state = file.size_text, "missing"
            if (folder / file.path).is_file():
                size, state = mib((folder / file.path).stat().st_size), "here"
            elif parts_of(folder, file.path):
                state = "begun"
            elif hub is not None and (cached := hub.cached(file.path)) is not None:
                state = f"in {cached.parent}"
            out.write(f"  {size:>10}  {file.path}: {file.what}; {state}\n")
    return ExitStatus.OK


@contextlib.contextmanager
def _closing_connections() -> Iterator[None]:
    """huggingface_hub keeps its connections open for the next request; there is none."""
    from huggingface_hub import close_session

    try:
        yield
    finally:
        close_session()

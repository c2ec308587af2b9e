"""The weights: fetched from a hub that may do anything wrong, checked, listed."""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.__main__ import main
from orchestrator.lifecycle import ExitStatus
from orchestrator.models.catalogue import Catalogue, bundled_catalogue, default_folder
from orchestrator.models.command import DECLINED, models
from orchestrator.models.download import ConsentNeededError
from orchestrator.models.hub import Hub, HubError
from orchestrator.models.manifest import Manifest, read_manifest
from orchestrator.settings import LivePortraitSettings, Settings
from pipeline.errors import ConfigError
from tests.fakes.hub import COMMIT, REPOSITORY, FakeHub, Fault

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

NET, EYES, FACE = "nets/warp.pth", "nets/eyes.pth", "faces/find.onnx"
CONTENT = {NET: os.urandom(40_000), EYES: b"eyes" * 500, FACE: b"face" * 700}
CATALOGUE = Catalogue.parse(f"""
repository = "{REPOSITORY}"
revision = "main"
[sets.nets]
title = "Nets"
licence = "MIT"
terms = "for anything"
url = "https://example.org/mit"
[sets.faces]
title = "Faces"
licence = "research only"
terms = "not for trade"
url = "https://example.org/research"
[[files]]
path = "{NET}"
set = "nets"
what = "warps"
needed = true
size_bytes = 40000
[[files]]
path = "{EYES}"
set = "nets"
what = "opens eyes"
needed = true
[[files]]
path = "{FACE}"
set = "faces"
what = "finds the face"
needed = false
""")


class Answers(io.StringIO):
    """A terminal on which somebody types."""

    def isatty(self) -> bool:
        return True


class Run:
    """The command in this process, against a fake hub."""

    def __init__(self, hub: FakeHub, root: Path) -> None:
        self.hub = hub
        self.folder = root / "weights"
        self.cache = root / "cache"
        self.out = ""

    def __call__(self, action: str, typed: str | None = None, **options: Any) -> int:
        given: dict[str, Any] = {"yes": typed is None, "only": None, "offline": False}
        namespace = argparse.Namespace(action=action, to=self.folder, folder=self.folder)
        vars(namespace).update(given | options)
        out = io.StringIO()
        try:
            return models(
                Settings(),
                namespace,
                out,
                io.StringIO() if typed is None else Answers(typed),
                catalogue=CATALOGUE,
                hub_for=self._hub,
            )
        finally:
            self.out = out.getvalue()

    def has(self, path: str) -> bool:
        file = self.folder / path
        return file.is_file() and file.read_bytes() == self.hub.files[path]

    def leftovers(self) -> list[str]:
        """Everything in the folder but whole files and the manifest."""
        known = {*CONTENT, "models.json", ".models.lock"}
        found = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*"))
        return [name for name in found if name not in known and "." in name]

    def into_cache(self, path: str, content: bytes | None = None) -> Path:
        """Put a file into the local cache, as huggingface_hub lays it out."""
        import hashlib

        root = self.cache / ("models--" + REPOSITORY.replace("/", "--"))
        right = self.hub.files[path]
        blob = root / "blobs" / hashlib.sha256(right).hexdigest()
        link = root / "snapshots" / COMMIT / path
        for each in (blob, link, root / "refs" / "main"):
            each.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(right if content is None else content)
        link.symlink_to(blob)
        (root / "refs" / "main").write_text(COMMIT)
        return blob

    def _hub(self, catalogue: Catalogue, offline: bool) -> Hub:
        return Hub(
            catalogue.repository,
            catalogue.revision,
            offline=offline,
            endpoint=self.hub.endpoint,
            cache_dir=self.cache,
        )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A hub that has every file, small pieces, no token, and no waiting between tries."""
    from huggingface_hub import close_session, constants

    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    close_session()
    with FakeHub(CONTENT).serving() as hub:
        yield Run(hub, tmp_path)


def test_everything_is_fetched_once(run: Run) -> None:
    """Files lie under their official names, a manifest says what they are; again costs nothing."""
    assert run("download") == 0
    assert all(run.has(path) for path in CONTENT)
    assert not run.leftovers()
    assert "Licence: research only" in run.out
    assert tomllib.loads(run.out[run.out.index("[liveportrait]") :]) == {
        "liveportrait": {"weights_dir": str(run.folder)}
    }
    manifest = json.loads((run.folder / "models.json").read_text())
    assert manifest["licences"] == {"nets": True, "faces": True}
    assert manifest["files"][NET]["size_bytes"] == len(CONTENT[NET])
    assert manifest["files"][NET]["commit"] == COMMIT
    assert {each.revision for each in run.hub.asked[1:]} == {COMMIT}
    assert run("download") == 0
    assert len(run.hub.gets(NET)) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_connection_is_taken_up_where_it_broke(run: Run, reset: bool) -> None:
    """What came before the cut is not fetched again."""
    run.hub.faults["GET", NET].extend([Fault(cut_after=9_500, reset=reset)] * 2)
    assert run("download") == 0
    assert run.has(NET)
    ranges = [each.range for each in run.hub.gets(NET)]
    assert len(ranges) == 3
    if not reset:  # a reset may take with it what had come and was not read yet
        assert ranges == [None, "bytes=9000-", "bytes=18000-"]


@pytest.mark.parametrize("reset", [False, True])
def test_an_interrupted_download_goes_on_in_the_next_run(run: Run, reset: bool) -> None:
    """A line that stays broken ends the run; the next one asks for the rest alone."""
    run.hub.lasting = True
    run.hub.faults["GET", NET].extend([Fault(cut_after=9_500), Fault(cut_after=500, reset=reset)])
    with pytest.raises(HubError, match=re.escape(NET)):
        run("download")
    assert not (run.folder / NET).exists()
    assert "goes on from there" in run.out
    assert run("check") == ExitStatus.CONFIG
    assert "incomplete" in run.out
    run.hub.faults.clear()
    run.hub.asked.clear()
    assert run("download") == 0
    assert run.has(NET)
    assert [each.range for each in run.hub.gets(NET)] == ["bytes=9000-"]
    assert not run.leftovers()


def test_a_server_that_cannot_resume_sends_all_of_it(run: Run) -> None:
    """A whole answer to a request for the rest does not end up behind what was there."""
    run.hub.faults["GET", NET].extend([Fault(cut_after=9_500), Fault(ignore_range=True)])
    assert run("download") == 0
    assert run.has(NET)


def test_a_stalled_answer_is_given_up_and_taken_up_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes silent does not hold the download for ever."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    run.hub.faults["GET", NET].append(Fault(stall_after=9_500))
    assert run("download") == 0
    assert run.has(NET)
    assert "bytes=9000-" in [each.range for each in run.hub.gets(NET)]


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault(body=bytes(40_000)), "SHA-256"),
        (Fault(body=b"<html>sign in</html>".ljust(40_000)), "SHA-256"),
        (Fault(body=bytes(39_000)), "came where"),
        (Fault(body=bytes(41_000)), "more came"),
        (Fault(body=bytes(41_000), chunked=True), "more came"),
        (Fault(body=bytes(39_000), chunked=True), "came where"),
        (Fault(cut_after=0, chunked=True), "came where"),
    ],
)
def test_a_wrong_file_is_deleted_and_told(run: Run, fault: Fault, problem: str) -> None:
    """Nothing of it stays, under any name; the other files come all the same."""
    run.hub.faults["GET", NET].append(fault)
    assert run("download") == ExitStatus.UNAVAILABLE
    (told,) = [line for line in run.out.splitlines() if line.startswith("FAIL")]
    assert NET in told
    assert problem in told
    assert "deleted" in told
    assert not (run.folder / NET).exists()
    assert not run.leftovers()
    assert run.has(EYES)
    assert NET not in read_manifest(run.folder).files
    assert run("download") == 0, "the next run gets the right one"


def test_a_file_of_another_size_than_published_is_not_fetched(run: Run) -> None:
    """The catalogue's own figures are looked at before anything is fetched."""
    run.hub.files[NET] = bytes(100)
    assert run("download") == ExitStatus.UNAVAILABLE
    assert "100 bytes where 40000 are published" in run.out
    assert not run.hub.gets(NET)
    assert run.has(EYES)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (404, "no such file"),
        (416, "416"),
        (429, "too many requests"),
        (500, "try again later"),
    ],
)
def test_a_refusal_says_what_would_help(run: Run, method: str, status: int, words: str) -> None:
    """Each status has its sentence, and nothing is left that looks like a file."""
    run.hub.lasting = True
    run.hub.faults[method, NET].append(Fault(status=status))
    with pytest.raises(HubError, match=words):
        run("download")
    assert not (run.folder / NET).exists()


def test_an_overloaded_hub_is_asked_again(run: Run) -> None:
    """One 429 and one 503 delay a download, no more."""
    run.hub.faults["HEAD", NET].append(Fault(status=503))
    run.hub.faults["GET", NET].append(Fault(status=429))
    assert run("download") == 0


def test_a_part_that_the_server_cannot_go_on_from_is_given_up(run: Run) -> None:
    """A refused range does not block every later run."""
    run.hub.lasting = True
    run.hub.faults["GET", NET].extend([Fault(cut_after=9_500), Fault(status=416)])
    with pytest.raises(HubError, match="416"):
        run("download")
    run.hub.faults.clear()
    assert run("download") == 0
    assert run.hub.gets(NET)[-1].range is None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": ""},
        {"X-Repo-Commit": "../../main"},
        {"X-Linked-Etag": "", "ETag": ""},
        {"X-Linked-Size": "0"},
    ],
)
def test_something_that_is_no_hub_is_recognised(run: Run, headers: dict[str, str]) -> None:
    """A page without the hub's headers, or with other values, is not taken for a file."""
    run.hub.faults["HEAD", NET].append(Fault(headers=headers))
    with pytest.raises(HubError, match="HF_ENDPOINT"):
        run("download")


def test_a_file_without_a_sha256_is_refused(run: Run) -> None:
    """What cannot be verified is not fetched."""
    run.hub.faults["HEAD", NET].append(Fault(headers={"X-Linked-Etag": '"0123abc"'}))
    with pytest.raises(HubError, match="SHA-256"):
        run("download")


def test_no_hub_at_all(run: Run) -> None:
    """An address where nobody listens is named."""
    run.hub = FakeHub(CONTENT)
    for server in run.hub._servers:
        server.server_close()
    with pytest.raises(HubError, match=f"{run.hub.endpoint}.* cannot be reached"):
        run("download")


def test_the_token_stays_with_the_hub(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN is shown to the hub, and not to the storage that it sends the client to."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with FakeHub(CONTENT, redirects=True).serving() as run.hub:
        run.hub.faults["GET", NET].append(Fault(cut_after=9_500))
        assert run("download") == 0
    assert all(run.has(path) for path in CONTENT)
    shown = {each.token for each in run.hub.asked if not each.elsewhere}
    assert shown == {"Bearer hf_secret"}
    stored = [each for each in run.hub.asked if each.elsewhere]
    assert {each.token for each in stored} == {None}
    assert [each.range for each in run.hub.gets(NET)] == [None, "bytes=9000-"]


def test_what_the_cache_has_is_not_fetched(run: Run) -> None:
    """A good copy in the local cache serves; a damaged one does not."""
    run.into_cache(NET)
    run.into_cache(EYES, b"damaged")
    assert run("download") == 0
    assert run.has(NET)
    assert run.has(EYES)
    assert not run.hub.gets(NET)
    assert len(run.hub.gets(EYES)) == 1


@pytest.mark.parametrize("variable", [False, True])
def test_offline_only_the_cache_is_used(
    run: Run, variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--offline and HF_HUB_OFFLINE send nothing out, and say what they lack."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable)
    run.into_cache(NET)
    run.into_cache(EYES)
    assert run("download", offline=not variable) == ExitStatus.UNAVAILABLE
    assert run.has(NET)
    assert f"FAIL   {FACE}: is not in the local cache" in run.out
    assert "without --offline" in run.out
    assert run("download", offline=not variable, only="nets") == 0
    run.into_cache(FACE)
    assert run("download", offline=not variable) == 0
    assert not run.hub.asked


def test_offline_a_damaged_cache_is_noticed(run: Run) -> None:
    """The cache keeps files under their hash: a file that has another one is not taken."""
    run.into_cache(NET, bytes(40_000))
    assert run("download", offline=True, only="nets") == ExitStatus.UNAVAILABLE
    assert "SHA-256" in run.out
    assert not (run.folder / NET).exists()


def test_a_wrong_file_in_its_place_is_replaced(run: Run) -> None:
    """A file that is not the hub's is fetched anew; until then it stays."""
    (run.folder / NET).parent.mkdir(parents=True)
    (run.folder / NET).write_bytes(b"stale")
    run.hub.faults["GET", NET].append(Fault(body=bytes(40_000)))
    assert run("download") == ExitStatus.UNAVAILABLE
    assert (run.folder / NET).read_bytes() == b"stale"
    assert run("download") == 0
    assert run.has(NET)


def test_each_licence_is_asked_once(run: Run) -> None:
    """One may be declined, both answers are remembered, and --only asks again."""
    assert run("download", typed="maybe\ny\nn\n") == 0
    assert run.has(NET)
    assert not (run.folder / FACE).exists()
    assert run("download", typed="") == 0
    assert "accepted before" in run.out
    assert "--only faces asks again" in run.out
    assert run("download", typed="y\n", only="faces") == 0
    assert run.has(FACE)
    assert run("download", yes=False) == 0, "with every licence accepted nobody need be there"


def test_declining_everything_fetches_nothing(run: Run) -> None:
    """That is an answer, not a failure of the network."""
    assert run("download", typed="n\nno\n") == DECLINED
    assert not run.hub.asked


@pytest.mark.parametrize("typed", [None, "", "what?\nwhy?\nhow?\n"])
def test_nothing_is_taken_for_consent(run: Run, typed: str | None) -> None:
    """Without a terminal or a clear answer no licence counts as accepted, and nothing is made."""
    with pytest.raises(ConsentNeededError):
        run("download", typed=typed, yes=False)
    assert not run.folder.exists()
    assert not run.hub.asked


def test_room_is_looked_for_before_the_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too small is named with what is needed and what is free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ConfigError, match="are needed and 0 bytes free"):
        run("download")
    assert not run.hub.gets(NET)


def test_a_disk_that_fills_up_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that others took meanwhile is told from a fault of the hub; what came is kept."""

    def write(kept: Any, data: bytes) -> int:
        if kept.tell() >= 9_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return io.BufferedRandom.write(kept, data)

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.models.hub._BoundedFile.write", write)
        with pytest.raises(ConfigError, match="weights: cannot be written: No space left"):
            run("download")
    assert run("download") == 0
    assert run.hub.gets(NET)[-1].range == "bytes=9000-"


def test_a_folder_that_cannot_be_made_is_named(run: Run) -> None:
    """A file in the way is a configuration error that names it."""
    run.folder.write_text("")
    with pytest.raises(ConfigError, match="weights"):
        run("download")


def test_two_downloads_do_not_share_a_folder(run: Run) -> None:
    """The second one is told while the first one runs, and nothing of the first is touched."""
    assert run("download", only="nets") == 0
    with (run.folder / ".models.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another download"):
            run("download")
    assert run.has(NET)
    assert run("download") == 0


def test_without_huggingface_hub_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs no hub works all the same."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    folder = str(tmp_path / "weights")
    assert main(["models", "download", "--yes", "--to", folder]) == ExitStatus.CONFIG
    assert "'.[models]'" in capsys.readouterr().err
    assert main(["models", "list", folder]) == 0
    assert main(["models", "check", folder]) == ExitStatus.CONFIG
    assert not Path(folder).exists()


@given(content=st.binary(max_size=200) | st.just(b'{"format": 1, "files": {"a": {}}}'))
def test_a_damaged_manifest_is_named(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Any bytes are a manifest or a configuration error that names the file."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "models.json").write_bytes(content)
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        if json.loads(content) == {}:
            assert read_manifest(folder) == Manifest()
            return
    with pytest.raises(ConfigError, match=r"models\.json"):
        read_manifest(folder)


def test_check_finds_what_changed_since(run: Run) -> None:
    """A byte that turned, a file cut short and a missing one are told apart."""
    assert run("download") == 0
    damaged = bytearray(CONTENT[NET])
    damaged[20_000] ^= 1
    (run.folder / NET).write_bytes(damaged)
    (run.folder / EYES).write_bytes(CONTENT[EYES][:100])
    (run.folder / FACE).unlink()
    assert run("check") == ExitStatus.CONFIG
    lines = dict(line.split(maxsplit=1)[::-1] for line in run.out.splitlines()[:3])
    verdicts = {text.split()[0]: (verdict, text) for text, verdict in lines.items()}
    assert verdicts[NET][0] == "FAIL"
    assert "changed" in verdicts[NET][1]
    assert "100 bytes where 2000" in verdicts[EYES][1]
    assert verdicts[FACE][0] == "note"
    assert f"models download --to {run.folder} --only faces" in verdicts[FACE][1]


def test_list_says_what_is_where(run: Run) -> None:
    """Each file with its size, licence and whereabouts."""
    run.into_cache(FACE)
    run.hub.faults["GET", EYES].append(Fault(status=404))
    with pytest.raises(HubError):
        run("download", only="nets")
    assert run("list") == 0
    assert f"{run.hub.endpoint}/{REPOSITORY}, main" in run.out
    assert re.search(rf"{NET}.*; here", run.out)
    assert re.search(rf"{EYES}.*; missing", run.out)
    assert re.search(rf"{FACE}.*; in {run.cache}", run.out)
    assert "licence: accepted" in run.out
    assert "licence: not asked yet" in run.out


def test_the_folder_follows_the_setting(tmp_path: Path) -> None:
    """The setting goes first, then the XDG data home."""
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    assert default_folder(Settings(), environ) == tmp_path / "avatar-orchestrator" / "models"
    settings = Settings(liveportrait=LivePortraitSettings(weights_dir="~/weights"))
    assert default_folder(settings, environ) == Path.home() / "weights"


DETECTORS = {
    file.path: os.urandom(1000) * (file.size_bytes // 1000 + 1)
    for file in bundled_catalogue().files
    if file.size_bytes is not None
}


@pytest.fixture
def public() -> Iterator[FakeHub]:
    """A hub under the public repository's name, with detectors of the published size."""
    sizes = {file.path: file.size_bytes for file in bundled_catalogue().files}
    files = {path: content[: sizes[path]] for path, content in DETECTORS.items()}
    with FakeHub(files, repository=bundled_catalogue().repository).serving() as hub:
        yield hub


class Shell:
    """The installed command in a process of its own, with a terminal for its progress."""

    def __init__(self, hub: FakeHub, root: Path, *arguments: str) -> None:
        self.folder = root / "weights"
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(root / "hf"), "HF_TOKEN": ""}
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (25, 100))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "orchestrator", "models", "download",
             "--to", str(self.folder), "--only", "insightface", *arguments],
            stdin=inner, stdout=inner, stderr=inner, env=environ,
            start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> int:
        """Its exit status; `text` is everything that it wrote."""
        try:
            while select.select([self._terminal], [], [], 30)[0]:
                try:
                    self.text += os.read(self._terminal, 65536).decode()
                except OSError:  # the other side is closed
                    break
            return self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._terminal)


def test_ctrl_c_and_the_run_after_it(public: FakeHub, tmp_path: Path) -> None:
    """HF_ENDPOINT is asked, the bar moves, Ctrl-C ends cleanly, and the next run goes on."""
    path = next(iter(DETECTORS))
    public.faults["GET", path].append(Fault(stall_after=12_000_000))
    shell = Shell(public, tmp_path)
    shell.type("yes\n")
    assert public.stalled.wait(30)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # until what was sent before the stall has been kept
        if any(part.stat().st_size for part in shell.folder.rglob("*.part")):
            break
        time.sleep(0.02)
    shell.interrupt()
    assert shell.finish() == 130
    assert "goes on from there" in shell.text
    assert "Traceback" not in shell.text
    assert "%|" in shell.text
    assert not (shell.folder / path).exists()
    public.release.set()
    again = Shell(public, tmp_path)
    assert again.finish() == 0, again.text
    assert "accepted before" in again.text
    begun = [each.range for each in public.gets(path)]
    assert begun == [None, f"bytes={10 * 2**20}-"]
    assert all((shell.folder / each).read_bytes() == public.files[each] for each in DETECTORS)


def test_a_script_has_to_accept_the_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without --yes the command ends with the usage status and says why."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["models", "download", "--to", str(tmp_path / "none")]) == ExitStatus.USAGE
    assert "--yes" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()

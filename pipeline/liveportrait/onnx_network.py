"""Opening ONNX networks through onnxruntime, checked before they are used. No torch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import structlog

from pipeline.errors import ConfigError
from pipeline.liveportrait.errors import CheckpointError

log = structlog.get_logger()

HOW_TO_GET: Final = "avatar-orchestrator models download"
_HOW_TO_INSTALL: Final = "pip install '.[liveportrait]' in the checkout"
_FLOAT: Final = "tensor(float)"
_ERRORS_ONLY: Final = 3
_CPU: Final = "CPUExecutionProvider"
_PREFERRED: Final = ("CUDAExecutionProvider", _CPU)

Shape = tuple[int, ...]


def optional_package(name: str) -> ModuleType:
    """A package of the extra `liveportrait`.

    Raises:
        ConfigError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            raise ConfigError(top, f"the package is not installed: {_HOW_TO_INSTALL}") from error
        raise ConfigError(top, f"the package does not import: {error}") from error


def usable_providers(wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Of the wanted execution providers those that this onnxruntime has; if none, the CPU.

    Args:
        wanted: in order of preference; CUDA, then the CPU, if not given.
    """
    available = optional_package("onnxruntime").get_available_providers()
    return tuple(name for name in wanted or _PREFERRED if name in available) or (_CPU,)


class Network:
    """A checked onnxruntime session that goes on on the CPU where another device fails.

    The GPU is shared, so its memory can run out under any call. onnxruntime would go on by itself
    too, but prints that to the standard output.
    """

    def __init__(self, file: Path, session: Any) -> None:
        self._file = file
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, Any]) -> list[Any]:
        """The outputs of these names, all if None."""
        try:
            made: list[Any] = self._session.run(outputs, feed)
        except Exception as error:  # onnxruntime's errors share no root of their own
            providers = self._session.get_providers()
            if providers == [_CPU]:
                raise
            _log_lost(self._file, providers, error)
            self._session.set_providers([_CPU])
            made = self._session.run(outputs, feed)
        return made


def open_network(
    file: Path,
    what: str,
    takes: tuple[str, Shape],
    gives: Sequence[Shape | None],
    providers: Sequence[str] | None = None,
) -> Network:
    """A network that takes one picture.

    It is run once on black, so that one that declares its shapes wrongly or not at all is found
    out here, and the first portrait does not wait for the warm-up.

    Args:
        file: the ONNX file.
        what: for messages.
        takes: name of the input, and its shape; an axis may be declared open.
        gives: shapes of the outputs in order, leading ones left out; None where it does not matter.
        providers: see `usable_providers`.

    Raises:
        CheckpointError: the file is missing, damaged, or another network.
        ConfigError: onnxruntime is not installed.
    """
    if not file.is_file():
        raise CheckpointError(file, None, f"{what} ({HOW_TO_GET})", "no such file")
    usable = usable_providers(providers)
    try:
        return Network(file, _checked(file, what, takes, gives, usable))
    except CheckpointError as error:
        if usable == (_CPU,):
            raise
        session = _checked(file, what, takes, gives, (_CPU,))  # fails too if it is the file
        _log_lost(file, usable, error)
        return Network(file, session)


def _log_lost(file: Path, providers: Sequence[str], error: Exception) -> None:
    problem = _first_line(error)
    log.warning("onnx_on_the_cpu", file=file.name, instead_of=providers[0], problem=problem)


def _checked(
    file: Path,
    what: str,
    takes: tuple[str, Shape],
    gives: Sequence[Shape | None],
    providers: Sequence[str],
) -> Any:
    onnxruntime = optional_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY  # it warns of what released models declare
    options.enable_cpu_mem_arena = False  # one run per portrait: give the memory back after it
    try:
        session = onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=list(providers), enable_fallback=0
        )
    except Exception as error:  # as above
        found = f"{file.stat().st_size} bytes that do not load ({_first_line(error)})"
        raise CheckpointError(file, None, f"{what}, an ONNX network", found) from error
    _check_input(file, session, *takes)
    _check_outputs(file, session, takes, gives)
    return session


def _check_input(file: Path, session: Any, name: str, shape: Shape) -> None:
    inputs = session.get_inputs()
    if [each.name for each in inputs] != [name]:
        found = ", ".join(repr(each.name) for each in inputs)
        raise CheckpointError(file, None, f"one input {name!r}", found)
    declared = inputs[0]
    fits = len(declared.shape) == len(shape) and all(
        axis == wanted or not isinstance(axis, int)
        for axis, wanted in zip(declared.shape, shape, strict=True)
    )
    if declared.type != _FLOAT or not fits:
        expected = f"{_FLOAT} {list(shape)}"
        raise CheckpointError(file, name, expected, f"{declared.type} {declared.shape}")


def _check_outputs(
    file: Path, session: Any, takes: tuple[str, Shape], gives: Sequence[Shape | None]
) -> None:
    outputs = session.get_outputs()
    if len(outputs) != len(gives):
        found = f"{len(outputs)} ({', '.join(each.name for each in outputs)})"
        raise CheckpointError(file, None, _counted(len(gives)), found)
    name, shape = takes
    try:
        made = session.run(None, {name: np.zeros(shape, np.float32)})
    except Exception as error:  # as above
        expected = f"a network that runs on {list(shape)}"
        raise CheckpointError(file, name, expected, _first_line(error)) from error
    for output, result, wanted in zip(outputs, made, gives, strict=True):
        if wanted is None:
            continue
        array = np.asarray(result)
        fits = array.size == math.prod(wanted) and array.shape[-len(wanted) :] == wanted
        if not fits or array.dtype != np.float32:
            raise CheckpointError(
                file, output.name, f"float32 {list(wanted)}", f"{array.dtype} {list(array.shape)}"
            )


def _counted(outputs: int) -> str:
    return "one output" if outputs == 1 else f"{outputs} outputs"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

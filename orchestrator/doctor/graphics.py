"""GPU, driver and torch: whether they fit each other.

torch is asked in a process of its own: an installation that crashes or hangs is a finding.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.probing import Told, told_by
from orchestrator.doctor.report import Diagnosis
from orchestrator.hardware import gpu_name, has_gpu

QUERY: Final = "name,driver_version,memory.total,memory.used,compute_cap"
NVIDIA_SMI_S: Final = 5.0
TORCH_S: Final = 30.0
_TORCH: Final = """
import json, torch
cuda = torch.cuda.is_available()
mps = getattr(torch.backends, "mps", None)
devices = [
    {"name": p.name, "capability": [p.major, p.minor], "bytes": p.total_memory,
     "integrated": bool(getattr(p, "is_integrated", False))}
    for p in (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
] if cuda else []
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "available": cuda,
    "arches": torch.cuda.get_arch_list() if cuda else [], "devices": devices,
    "mps": bool(mps and mps.is_available()), "threads": torch.get_num_threads()}))
"""


def look(patient: Patient) -> Iterator[Diagnosis]:
    """The driver's view, then torch's, then whether they agree."""
    driver_cuda = yield from _driver()
    if importlib.util.find_spec("torch") is None:
        if has_gpu():
            advice = "LivePortrait would use it: pip install '.[liveportrait]' in the checkout"
            yield Diagnosis("note", "torch", "not installed, though there is a GPU", advice)
        else:
            yield Diagnosis("ok", "torch", "not installed, and not needed without a GPU")
        return
    told = told_by((sys.executable, "-c", _TORCH), TORCH_S)
    if told.trouble is not None:
        advice = "run python -c 'import torch' in the same environment and mend what it says"
        yield Diagnosis("FAIL", "torch", f"does not load: {told.trouble}", advice)
        return
    yield from judge_torch(json.loads(told.output.splitlines()[-1]), driver_cuda, gpu=has_gpu())


def _driver() -> Generator[Diagnosis, None, str | None]:
    """What the driver tells; returns the newest CUDA that it serves, if it says so."""
    listed = told_by(
        ("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"), NVIDIA_SMI_S
    )
    if listed.trouble == "missing":
        name = gpu_name()
        if name is None:
            yield Diagnosis("ok", "gpu", "none that the NVIDIA driver knows of")
        else:
            advice = "install the driver's nvidia-utils to see its versions and memory"
            yield Diagnosis("note", "gpu", f"{name}; there is no nvidia-smi", advice)
        return None
    if listed.trouble is not None:
        advice = "mend the driver: is its kernel module loaded, and of the same version?"
        yield Diagnosis("FAIL", "gpu", f"nvidia-smi: {listed.trouble}", advice)
        return None
    yield from judge_listing(listed.output)
    return newest_cuda(told_by(("nvidia-smi",), NVIDIA_SMI_S))


def judge_listing(listing: str) -> Iterator[Diagnosis]:
    """Findings about what nvidia-smi lists.

    Args:
        listing: comma-separated, a line for each GPU, columns as in `QUERY`.
    """
    for line in listing.strip().splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5:
            yield Diagnosis("note", "gpu", f"nvidia-smi says {line!r}")
            continue
        name, driver, total, used, capability = cells
        text = f"{name}, driver {driver}, compute capability {capability}"
        if total.isdigit() and used.isdigit():
            yield Diagnosis("ok", "gpu", f"{text}, {used} of {total} MiB in use")
        else:
            yield Diagnosis("ok", "gpu", f"{text}, shares the machine's memory")
            yield Diagnosis(
                "ok",
                "false alarm",
                'nvidia-smi has no figure for this memory ("Not Supported"): it is the machine\'s '
                "own, see memory above; liveportrait.memory_share is of all of it",
            )


def newest_cuda(told: Told) -> str | None:
    """The CUDA version in the head of nvidia-smi's table."""
    found = re.search(r"CUDA Version:\s*(\d+\.\d+)", told.output)
    return found.group(1) if found else None


def judge_torch(
    facts: dict[str, Any], driver_cuda: str | None, *, gpu: bool
) -> Iterator[Diagnosis]:
    """Findings about torch.

    Args:
        facts: what torch says about itself.
        driver_cuda: the newest CUDA that the driver serves, where known.
        gpu: the machine has one.
    """
    built = facts["cuda"]
    text = f"torch {facts['version']}, " + (f"built for CUDA {built}" if built else "without CUDA")
    if facts["mps"]:
        text += ", Metal available"
    if gpu and not built and not facts["mps"]:
        advice = "this build cannot use the GPU; install the CUDA build of torch for this machine"
        yield Diagnosis("FAIL", "torch", text, advice)
        return
    if gpu and built and not facts["available"]:
        advice = "torch finds no device: is the driver loaded, may this user open /dev/nvidia*?"
        if driver_cuda and _major(built) > _major(driver_cuda):
            advice = (
                f"the driver serves CUDA up to {driver_cuda}: update the driver, or install "
                f"a torch built for CUDA {_major(driver_cuda)}"
            )
        yield Diagnosis("FAIL", "torch", text, advice)
        return
    yield Diagnosis("ok", "torch", text)
    for device in facts["devices"]:
        yield _judge_device(device, facts["arches"])


def _judge_device(device: dict[str, Any], arches: Sequence[str]) -> Diagnosis:
    major, minor = device["capability"]
    memory = f"{device['bytes'] // 2**20} MiB" + (", unified" if device["integrated"] else "")
    text = f"{device['name']}: compute capability {major}.{minor}, {memory}"
    built = [(int(a[:-1]), int(a[-1])) for a in re.findall(r"sm_(\d+)", " ".join(arches))]
    if (major, minor) in built:
        return Diagnosis("ok", "device", text)
    if any(each == major and other <= minor for each, other in built):
        note = "; torch may warn that it is too new: a false alarm, kernels of its family run on it"
        return Diagnosis("ok", "device", text + note)
    advice = "this torch has no kernels for it; install a build of torch that is made for this GPU"
    return Diagnosis("FAIL", "device", f"{text}; torch has {', '.join(arches) or 'none'}", advice)


def _major(version: str) -> int:
    return int(version.partition(".")[0])

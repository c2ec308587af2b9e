"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import torch

from tests.benchmarks.liveportrait.clock import Clock
from tests.benchmarks.liveportrait.first import First
from tests.benchmarks.liveportrait.forms import Form, Pair, factors
from tests.benchmarks.liveportrait.rounds import Figures, device_name
from tests.benchmarks.liveportrait.subject import ON_DEVICE, PREPARE, SETTINGS, STAGES
from tests.benchmarks.machine import described
from tests.benchmarks.table import Table


def machine(device: str, weights: str) -> Table:
    """The machine, and what calculates."""
    table = described()
    kind = torch.device(device).type
    libraries = f"torch {torch.__version__}"
    if kind == "cuda":
        libraries += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if kind == "cpu" else ""
    table.add("LivePortrait", f"{libraries}; on {device_name(device)}{threads}; {weights}")
    return table


def stages(figures: Mapping[Form, Figures], rounds: int, clock: Clock) -> Table:
    """Milliseconds by stage."""
    width, height = SETTINGS.size_px
    what = "ms of processor time" if clock.alone else "ms"
    table = Table(
        f"LivePortrait, {width}x{height}: {what}, medians of {rounds}",
        ("Form", PREPARE, *STAGES, "Frame", "Elapsed"),
    )
    for form, seen in figures.items():
        spent = (median(seen.stages[stage]) for stage in (PREPARE, *STAGES))
        table.add(str(form), *spent, median(seen.frames), median(seen.elapsed))
    device = (
        ", whose warp and decode are the device's own time; the fast form's run from CUDA graphs, "
        "as they do in a frame; both forms use cuDNN's deterministic kernels, the fastest by trial."
    )
    table.notes.append(
        "'prepare' is once per portrait; 'stitch' is from controls to keypoints. 'Frame' is from "
        "controls to JPEG, measured without looking at the stages, 'Elapsed' the same by the "
        "clock on the wall" + (device if clock.kind == "cuda" else ".")
    )
    return table


def ratios(figures: Mapping[Form, Figures], pairs: Sequence[Pair]) -> Table:
    """How many times as fast, against what was promised."""
    table = Table(
        "LivePortrait: times as fast, controls to JPEG",
        ("Form", "Against", "Median", "Least", "Most", "Target", "Verdict"),
    )
    frames = {form: seen.frames for form, seen in figures.items()}
    for pair in pairs:
        middle, least, most = factors(frames, pair)
        target = "-" if pair.wanted is None else f">= {pair.wanted:.2f}"
        table.add(
            str(pair.form), str(pair.against), middle, least, most, target, pair.verdict(middle)
        )
    table.notes.append("Of frames drawn right after each other, forms in turn, every other round "
                       "in reverse.")  # fmt: skip
    return table


def arithmetic(figures: Mapping[Form, Figures], peaks: Mapping[str, float]) -> Table:
    """GFLOP, and how much of what the device can do is reached."""
    heads = (f"{stage} {what}" for stage in ON_DEVICE for what in ("GFLOP", "GFLOP/s", "of peak"))
    table = Table("LivePortrait: arithmetic", ("Form", f"{PREPARE} GFLOP", *heads, "Both of peak"))
    for form, seen in figures.items():
        cells: list[object] = [seen.gflop[PREPARE]]
        for stage in ON_DEVICE:
            rate = seen.gflop[stage] / median(seen.stages[stage]) * 1000.0
            cells += [seen.gflop[stage], rate, f"{rate / peaks[form.dtype]:.0%}"]
        spent_ms = sum(median(seen.stages[stage]) for stage in ON_DEVICE)
        whole = sum(seen.gflop[stage] for stage in ON_DEVICE) / spent_ms * 1000.0
        table.add(str(form), *cells, f"{whole / peaks[form.dtype]:.0%}")
    table.notes.append(
        "Matrix products and convolutions that are run, a multiply-add as two. The peak is the "
        "best of large matrix products and wide convolutions, before and after the frames: "
        + ", ".join(f"{dtype} {peak / 1000:.3g} TFLOP/s" for dtype, peak in peaks.items())
        + "."
    )
    return table


def firsts(found: Mapping[Form, First]) -> Table:
    """Seconds to the first frame, and memory."""
    table = Table(
        "LivePortrait: first frame (s) and memory (MB), a process of its own each",
        ("Form", "Import", "Load", "Prepare", "Draw", "Cold", "Processor", "Prepare, warm",
         "Draw, warm", "RSS", "RSS peak", "GPU peak", "Portrait"),
    )  # fmt: skip
    for form, seen in found.items():
        table.add(
            str(form), seen.import_s, seen.load_s, seen.prepare_s, seen.draw_s, seen.cold_s,
            seen.cold_processor_s, seen.warm_prepare_s, seen.warm_draw_s,
            round(seen.rss_mb), round(seen.peak_rss_mb), seen.device_mb, seen.prepared_mb,
        )  # fmt: skip
    table.notes.append(
        "'Cold' is the sum of the first four, weights read from disk where the system lets them "
        "be dropped from memory, 'Processor' the processor's time for them; 'Portrait' is what "
        "one prepared portrait holds."
    )
    return table


def throughputs(found: Mapping[Form, float], reasons: Mapping[Form, Sequence[str]]) -> Table:
    """Frames per second with overlapped copies."""
    table = Table("LivePortrait: frames per second, the next begun before the last is fetched",
                  ("Form", "Frames/s", "Slower than it could be"))  # fmt: skip
    for form, rate in found.items():
        table.add(str(form), rate, "; ".join(reasons[form]) or "no")
    return table

"""Where the forms come from; crosses to other processes. No torch until one is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.liveportrait.forms import Form
from tests.benchmarks.machine import forget

if TYPE_CHECKING:
    from tests.benchmarks.liveportrait.subject import Subject


@dataclass(frozen=True, slots=True)
class Source:
    """A weights folder and a device.

    Attributes:
        weights_dir: None makes stand-ins that do next to nothing.
        threads: that torch uses on a CPU; None leaves it to torch.
    """

    weights_dir: Path | None
    device: str
    threads: int | None

    def settle(self) -> None:
        """Set up torch in this process.

        cuDNN may choose its kernels by trying them for either form: the reference does that, too.
        """
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = True

    def check(self) -> None:
        """Refuse weights that cannot be loaded before anything is measured.

        Raises:
            CheckpointError: a file is missing, damaged, or not the one it should be.
        """
        from pipeline.liveportrait.checkpoints import load_networks

        if self.weights_dir is not None:
            load_networks(self.weights_dir)

    def load(self, form: Form) -> Subject:
        """A form, loaded, without a portrait yet."""
        if self.weights_dir is None:
            from tests.benchmarks.liveportrait.dry import StandIn

            return StandIn(form, self.device)
        from tests.benchmarks.liveportrait.subject import Model

        return Model(self.weights_dir, self.device, form)

    @contextmanager
    def loaded(self, form: Form) -> Iterator[Subject]:
        """The same, closed afterwards."""
        subject = self.load(form)
        try:
            yield subject
        finally:
            subject.close()

    def forget_files(self) -> None:
        """Drop the checkpoints from the page cache, where the system has a way to."""
        if self.weights_dir is not None:
            for path in self.weights_dir.rglob("*"):
                if path.is_file():
                    forget(path)

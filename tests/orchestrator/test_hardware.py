"""The GPU's name comes from its kernel driver."""

from pathlib import Path

from orchestrator.hardware import gpu_name


def test_the_driver_names_the_gpu(tmp_path: Path) -> None:
    """The first device's model is the name; a machine without the driver has none."""
    assert gpu_name(tmp_path / "none") is None
    device = tmp_path / "000f:01:00.0"
    device.mkdir()
    (device / "information").write_text("Model: \t\t NVIDIA GB10\nIRQ:   \t\t 118\n")
    assert gpu_name(tmp_path) == "NVIDIA GB10"
    (device / "information").write_text("IRQ: 1\n")
    assert gpu_name(tmp_path) is None

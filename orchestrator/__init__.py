"""What the face does and when; owns the process."""

__version__ = "0.1.0"

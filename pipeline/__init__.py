"""Face controls to pixels: portraits, renderers, frame cache, fallback ladder, encoding."""

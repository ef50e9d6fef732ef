"""Presets: one a file, get_config() -> aejax.Config."""

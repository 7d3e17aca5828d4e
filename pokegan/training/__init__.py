"""The engine: builds a run from its config, trains it, and keeps it on disk."""

"""The command line: one short file a command; parses, calls, prints. No logic."""

"""Names of files made fit for JSON, for a terminal, and for a file system."""


def encodable(name: str) -> str:
    """`name` with the bytes that were no UTF-8 in the file system written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """`name` with everything that could move a terminal's cursor or colour written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)

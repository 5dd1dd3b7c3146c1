"""Text of others on a terminal."""


def printable(text: str) -> str:
    """Return the text without characters that control a terminal: clients and servers name models and requests."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

"""Numbers of things in words."""


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, as `1 exception` and `2,000 exceptions`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"

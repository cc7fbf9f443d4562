def bucket(board_id: str) -> str:
    """Two lower-case hex digits that a board's topics are divided by (PROTOCOL.md section 2)."""

def topic(board_id: str, letter: str) -> str:
    """The board's topic for one letter (PROTOCOL.md section 2)."""

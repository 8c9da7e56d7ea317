"""The lines that a process writes, and waiting for one of them."""

import trio


class Lines:
    """Collects lines as the ``on_line`` callback of a process."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._news = trio.Event()

    def __call__(self, _name: str, _stream: str, line: str) -> None:
        self.all.append(line)
        self._news.set()
        self._news = trio.Event()

    async def said(self, beginning: str) -> str:
        """Wait for a line that begins with a text, and return the rest of it."""
        with trio.fail_after(20):
            while True:
                for line in self.all:
                    if line.startswith(beginning):
                        return line.removeprefix(beginning).strip()
                await self._news.wait()

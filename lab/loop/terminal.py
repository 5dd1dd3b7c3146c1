"""The demo's progress on the terminal: progress bars, with messages above them."""

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Terminal:
    """Shows a progress bar for each task, with elapsed and remaining time."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stop(self) -> None:
        self._progress.stop()

    def begin(self, title: str, total: int) -> Callable[[], None]:
        task = self._progress.add_task(title, total=total)
        return lambda: self._progress.advance(task)

    def say(self, text: str) -> None:
        self._progress.console.print(f"[bold]•[/] {text}", highlight=False)

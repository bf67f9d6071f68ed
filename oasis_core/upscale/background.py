"""Work done in order in a thread of its own, a bounded amount ahead: encoding beside a GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType


class Background:
    """Calls what it is given, one after the other, in another thread.

    What a call raises is raised again by the next `put` or `join` of the thread that gives; calls
    that wait behind it are dropped. Leaving the block by an exception drops them too.

    Args:
        most_waiting: Calls that may wait; giving another one then waits itself.
    """

    def __init__(self, most_waiting: int) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(most_waiting)
        self._error: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name="oasis-background", daemon=True)
        self._thread.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.join()
        finally:
            self._is_stopped = True
            self._calls.put(None)
            self._thread.join()

    def put(self, call: Callable[[], None]) -> None:
        """Give a call."""
        self._raise()
        self._calls.put(call)

    def join(self) -> None:
        """Wait until every call has been made."""
        self._calls.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                if not self._is_stopped and self._error is None:
                    call()
            except BaseException as error:
                # Kept for the thread that gave the call, whatever it is.
                self._error = error
            finally:
                self._calls.task_done()

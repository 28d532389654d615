"""A Jupyter kernel that executes one notebook after another, each in an empty namespace.

Starting a kernel and importing pandas and seaborn takes longer than most pages; notebooks read
records and keep no state in the library, so pages may share one. A kernel that died is replaced
by a new one.
"""

from __future__ import annotations

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

NAME = "python3"
ARGUMENTS = ["--IPKernelApp.log_level=50"]  # kernels warn of loopback sockets, and of being stopped
PATIENCE = 60  # seconds to wait for an answer


class _Manager(AsyncKernelManager):
    """Remembers the client it gave out last: whoever executes a notebook leaves its sockets
    open.
    """

    given = None

    def client(self, **options):
        self.given = super().client(**options)
        return self.given

    def close(self) -> None:
        if self.given is not None:
            self.given.stop_channels()


class Kernel:
    """At first not started: whoever executes a notebook on `manager` starts it."""

    def __init__(self):
        self._manager: _Manager | None = None

    def manager(self) -> AsyncKernelManager:
        """The manager of a kernel whose namespace is empty: of a new one where there is none that
        answers.
        """
        if self._manager is not None and not self._emptied():
            self.stop()
        if self._manager is None:
            self._manager = _Manager(kernel_name=NAME)
        return self._manager

    def stop(self) -> None:
        """End the kernel at once, whatever it is doing."""
        if self._manager is not None and self._alive():
            self._manager.close()
            run_sync(self._manager.shutdown_kernel)(now=True)
        self._manager = None

    def _alive(self) -> bool:
        return self._manager.has_kernel and run_sync(self._manager.is_alive)()

    def _emptied(self) -> bool:
        if not self._alive():
            return False
        self._manager.close()
        client = self._manager.blocking_client()
        client.start_channels()
        try:
            client.execute("get_ipython().reset()", silent=True, reply=True, timeout=PATIENCE)
        except TimeoutError:
            return False
        finally:
            client.stop_channels()
        return True

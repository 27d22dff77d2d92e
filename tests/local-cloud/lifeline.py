"""Starts processes that cannot outlive the one that started them, not even when that is killed.

Linux sends the death signal when the *thread* that started the child ends, not the process. So all starts go through
one thread that lives as long as the process. Nothing here waits for or stops children in the ordinary way.
"""

import queue
import signal
import subprocess
import threading
from concurrent.futures import Future


class Lifeline:
    """One thread, made at the first start, that starts children and then only waits for the next order."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, command: list, signal_at_our_death: str, **options) -> subprocess.Popen:
        """Like `subprocess.Popen(command, **options)`; the child gets the signal ("KILL", "TERM") when we die.

        The child is in a process group of its own: Ctrl-C reaches us, and we stop the child in good order.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="lifeline", daemon=True)
                self._thread.start()
        done: Future = Future()
        tied = ["setpriv", "--pdeathsig", signal_at_our_death, "--", *map(str, command)]
        self._orders.put((done, tied, {"process_group": 0, **options}))
        return done.result()

    def _serve(self) -> None:
        while True:
            done, command, options = self._orders.get()
            try:
                done.set_result(subprocess.Popen(command, **options))
            except BaseException as error:  # whatever it is, it belongs to the one who ordered
                done.set_exception(error)


LIFELINE = Lifeline()


def stop(child: subprocess.Popen, grace_s: float) -> None:
    """SIGTERM, then after `grace_s` seconds SIGKILL; returns when the child is gone."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

"""For tests of your own tasks: windows at once, without waiting for them.

::

    def test_mean() -> None:
        context, _, _ = ContextBuilder(lambda: [1.0, 2.0]).with_task(mean).build()
        assert [dataset[mean] for dataset in run_windows(context, 2)] == [1.5, 1.5]

With pytest come two fixtures, which need no import: ``virtual_clock``, a new
:class:`~run_task.VirtualClock`, and ``nothing_left_running``, which fails a test that leaves a
thread or a worker process of this library behind.
"""

from run_task._public import present as _present
from run_task.testing._windows import run_windows
from run_task.time._clock import VirtualClock

__all__ = ["VirtualClock", "run_windows"]

_present(globals())

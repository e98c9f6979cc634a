"""Figures are measured in one thread each.

The products that resampling takes are long and narrow, and done in less time than threads need to wait for each other:
of 80,000 packets on two busy cores the tab of performance took 13 s of processors with as many threads as cores, and
5 s with one.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def one_thread() -> threadpool_limits:
    """Give what keeps linear algebra to one thread for as long as it is entered."""
    return threadpool_limits(limits=1, user_api="blas")

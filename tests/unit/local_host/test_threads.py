import threading

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.threads import DaemonThreads, thread_limit

PATIENCE_S = 10


@pytest.fixture
def pool():
    pool = DaemonThreads(limit=2)
    yield pool
    pool.shutdown(wait=True, cancel_futures=True)


def test_work_comes_back_with_its_result_or_its_error(pool):
    assert pool.submit(divmod, 7, 2).result(PATIENCE_S) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(PATIENCE_S)


def test_a_thread_that_is_free_is_used_again(pool):
    names = {pool.submit(lambda: threading.current_thread().name).result(PATIENCE_S) for _ in range(20)}

    assert names <= {"function-0", "function-1"}


def test_no_more_run_at_once_than_the_limit_and_all_run(pool):
    both = threading.Barrier(2)
    futures = [pool.submit(both.wait, PATIENCE_S) for _ in range(6)]

    assert sorted(future.result(PATIENCE_S) for future in futures) == [0, 0, 0, 1, 1, 1]
    assert len(pool._threads) == 2


def test_a_function_that_calls_exit_does_not_take_its_thread_with_it(pool):
    with pytest.raises(SystemExit):
        pool.submit(exit, 3).result(PATIENCE_S)
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_what_has_not_begun_is_cancelled_when_the_pool_shuts_down():
    pool, release = DaemonThreads(limit=1), threading.Event()
    began = threading.Event()

    def hold():
        began.set()
        return release.wait(PATIENCE_S)

    running, queued = pool.submit(hold), pool.submit(abs, -1)
    assert began.wait(PATIENCE_S)
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()

    assert running.result(PATIENCE_S)
    assert queued.cancelled()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(abs, -1)


def test_threads_do_not_hold_the_process_back(pool):
    assert pool.submit(lambda: threading.current_thread().daemon).result(PATIENCE_S)


def test_the_limit_is_the_setting_of_the_real_worker():
    assert thread_limit({"PYTHON_THREADPOOL_THREAD_COUNT": "3"}) == 3
    assert 1 <= thread_limit({}) <= 32


@pytest.mark.parametrize("text", ["0", "33", "many", "", "-1"])
def test_a_limit_that_the_real_worker_would_not_take_is_refused(text):
    with pytest.raises(HostSetupError, match="PYTHON_THREADPOOL_THREAD_COUNT: expected"):
        thread_limit({"PYTHON_THREADPOOL_THREAD_COUNT": text})

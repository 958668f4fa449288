"""Where the files of a job are written: in this process, in several, or on an engine."""

import argparse
import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from tfig.batch.job import Job, Told, Work
from tfig.console import CommandError

_work: list[Work] = []
"""Of a worker: one, made when it begins."""


def spread(whole: Job, workers: int) -> Iterator[Told]:
    """In several processes, each with a model of its own. One that dies is replaced, and its file begun anew.

    Raises:
        CommandError: they die without finishing a file.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // workers))
    alone = {name: threads for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS") if name not in os.environ}
    os.environ.update(alone)  # read by TensorFlow where it begins
    try:
        while missing := whole.missing:
            pool = concurrent.futures.ProcessPoolExecutor(
                min(workers, len(missing)), multiprocessing.get_context("spawn"), _begin, (whole,)
            )
            try:
                for told in concurrent.futures.as_completed([pool.submit(_one, number) for number in missing]):
                    yield told.result()
            except KeyboardInterrupt:
                for child in multiprocessing.active_children():
                    child.terminate()  # a file is whole or not there
                raise
            except BrokenProcessPool:
                if whole.missing == missing:
                    raise CommandError(
                        "a worker died before it finished a file: killed for its memory? Ask for fewer --workers, or a "
                        "smaller --batch-size"
                    ) from None
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        for name in alone:
            del os.environ[name]


def _begin(whole: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    threading.Thread(target=_follow, daemon=True).start()
    _work.append(Work.begun(whole))


def _follow() -> None:
    """End with the process that asked, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(number: int) -> Told:
    (told,) = _work[0]([number])
    return told


def running(work: Work, options: argparse.Namespace) -> Iterator[Told]:
    """As the options say."""
    if options.runner is not None:
        from tfig.batch import pipeline

        return pipeline.running(work.job, options.runner, options.runner_option or [])
    return work(work.job.missing) if options.workers == 1 else spread(work.job, options.workers)

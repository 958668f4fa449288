"""The files of a job, written by workers of Apache Beam."""

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfig.batch.job import Job, Told, Work
from tfig.console import CommandError

LOOKED = 1.0
"""Seconds between two looks at what is finished: no runner says."""


def running(whole: Job, runner: str, options: Sequence[str]) -> Iterator[Told]:
    """Have a runner write the files that are missing; one that a worker began and did not finish is begun anew.

    Raises:
        CommandError: there is no Beam, or it does not finish.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.utils.shared import Shared
    except ImportError:
        raise CommandError("--runner needs Apache Beam: pip install tfig[beam]") from None

    class Writing(beam.DoFn):
        """Writes files, by a model that the threads of a process share."""

        def __init__(self, whole: Job, shared: Any):
            self.whole, self.shared = whole, shared

        def setup(self) -> None:
            self.work = self.shared.acquire(lambda: Work.begun(self.whole))

        def process(self, number: int) -> Iterable[Told]:
            if not self.whole.path(number).exists():
                yield from self.work([number])

    given = PipelineOptions([f"--runner={runner}", *(f"--{one.lstrip('-')}" for one in options)])

    def run(numbers: list[int]) -> None:
        with beam.Pipeline(options=given) as pipeline:
            files = pipeline | "Files" >> beam.Create(numbers) | beam.Reshuffle()
            _ = files | "Explain" >> beam.ParDo(Writing(whole, Shared()))

    left = whole.missing
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        running_ = one.submit(run, left)
        while True:
            done, _ = concurrent.futures.wait([running_], timeout=LOOKED)
            finished = [number for number in left if whole.path(number).exists()]
            for number in finished:
                start, stop = whole.span(number)
                yield Told(number, stop - start, 0, 0, 0)
            left = [number for number in left if number not in finished]
            if done:
                break
    error = running_.exception()
    if error is not None:
        said = str(error).strip() or type(error).__name__
        raise CommandError(f"{runner} stopped: {said.splitlines()[-1][:300]}") from error
    if left:
        raise CommandError(f"{runner} left {len(left)} files out")

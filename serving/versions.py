"""The versions of a served model: found on disk, loaded, swapped, released."""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from tfig.serving.export import versions
from tfig.serving.servable import RequestError, Servable
from tfig.serving.sizing import recorded

log = logging.getLogger("tfig.serving")


@dataclasses.dataclass(frozen=True)
class Failed:
    """A version that did not load: why, and the state of its files when it did not."""

    reason: str
    changed: float


class Model:
    """A served model: always its highest version that loads.

    Args:
        name: by which requests address it.
        directory: of its versions.
        largest: bytes of the largest tensor taken.
    """

    def __init__(self, name: str, directory: Path, largest: int):
        self.name, self.directory, self.largest = name, directory, largest
        self._lock = threading.Lock()
        self._loaded: dict[int, Servable] = {}
        self.failed: dict[int, Failed] = {}
        self.ended: set[int] = set()

    @property
    def loaded(self) -> list[int]:
        """Versions that answer."""
        with self._lock:
            return sorted(self._loaded)

    @contextlib.contextmanager
    def servable(self, version: int | None) -> Iterator[tuple[int, Servable]]:
        """A version, held while it answers: the highest, where none is asked for.

        Raises:
            RequestError: NOT_FOUND.
        """
        while True:
            with self._lock:
                number = max(self._loaded, default=None) if version is None else version
                servable = self._loaded.get(number) if number is not None else None
            if servable is None or number is None:
                asked = f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
                raise RequestError("NOT_FOUND", f"Servable not found for request: {asked}")
            with servable.held() as held:
                if held:
                    yield number, servable
                    return
            if version is not None:
                raise RequestError("NOT_FOUND", f"Servable not found for request: Specific({self.name}, {version})")

    def refresh(self) -> None:
        """Load the highest version there is, if it is another; then release the others once they are idle.

        A version that does not load leaves the old one in place; it is tried again when its files change.
        """
        found = versions(self.directory)
        for number in sorted(found, reverse=True):
            if number in self.loaded:
                break
            changed = max((path.stat().st_mtime for path in [found[number], *found[number].iterdir()]), default=0.0)
            known = self.failed.get(number)
            if known and known.changed == changed:
                continue
            try:
                servable = Servable(found[number], self.largest)
                self._warm(servable)
            except Exception as error:  # a version on disk may be broken in any way; the old one goes on
                self.failed[number] = Failed(str(error), changed)
                log.error("model %s version %d was not loaded: %s", self.name, number, error)
                continue
            with self._lock:
                old, self._loaded = self._loaded, {number: servable}
            self.failed.pop(number, None)
            self.ended.discard(number)
            log.info("model %s version %d is available", self.name, number)
            for past, one in old.items():
                one.close()
                self.ended.add(past)
                log.info("model %s version %d is unloaded", self.name, past)
            break

    def _warm(self, servable: Servable) -> None:
        """Answer the warm-up requests that came with it."""
        for request in recorded(servable.folder):
            servable.predict(request.model_spec.signature_name, request.inputs, request.output_filter)

    def close(self) -> None:
        """Release every version once it is idle."""
        with self._lock:
            old, self._loaded = self._loaded, {}
        for servable in old.values():
            servable.close()

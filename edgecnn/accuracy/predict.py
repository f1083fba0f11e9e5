"""Networks run over many images, on all cores, each image decoded once for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from edgecnn.accuracy.classifier import Classifier
from edgecnn.accuracy.record import Record, evaluations_dir
from edgecnn.agent.host import facts
from edgecnn.data.labelled import Inputs, Pictures
from edgecnn.errors import ConfigError
from edgecnn.fetch.cache import forget
from edgecnn.graph.reference import Runner
from edgecnn.progress import Progress, silent

Logits = npt.NDArray[np.float32]

_MAX_WORKERS = 16
# A loaded network takes several times its file; so many copies are made as fit into this, but one at least.
_MEMORY_BYTES = 2e9
_LOADED = 4
# Images under way for each worker: enough that none waits for one that is slow to decode.
_AHEAD = 4


def predict(
    classifiers: Sequence[Classifier],
    pictures: Pictures,
    fingerprints: Sequence[str],
    progress: Progress = silent,
) -> list[Logits]:
    """What each classifier gives for each picture.

    Outputs that an earlier run left in the cache folder are not computed again, and a run that is killed
    leaves there what it has computed.

    Args:
        classifiers: one or more, all of which prepare images alike.
        pictures: N images.
        fingerprints: theirs, in order.
        progress: told how many images are done.

    Returns:
        For each classifier an array (N, outputs), float32.

    Raises:
        DataError: an image cannot be decoded.
        OutputError: the cache folder cannot be written.
        ConfigError: classifiers that prepare images differently.
    """
    recipe = classifiers[0].recipe
    for other in classifiers[1:]:
        if other.recipe != recipe:
            raise ConfigError(
                f"{classifiers[0].name} and {other.name} prepare images differently",
                hint="they are not of the same network and weights",
            )
    doing, total = f"evaluating {classifiers[0].name}", len(pictures)
    progress(doing, 0, total)
    forget(evaluations_dir(), "*.rows")
    records = [Record(evaluations_dir() / f"{c.key}.rows", c.outputs) for c in classifiers]
    lacking = [[record.get(fingerprint) is None for fingerprint in fingerprints] for record in records]
    unfinished = [number for number, lacks in enumerate(lacking) if any(lacks)]
    missing = [index for index in range(total) if any(lacks[index] for lacks in lacking)]
    done = total - len(missing)
    running = [classifiers[number] for number in unfinished]
    try:
        with closing(_outputs(running, Inputs(pictures, recipe), missing)) as computed:
            for index, outputs in computed:
                for number, logits in zip(unfinished, outputs, strict=True):
                    records[number].add(fingerprints[index], logits)
                done += 1
                progress(f"{doing}: {done:,} of {total:,} images", done, total)
    finally:
        for record in records:
            record.write()
    return [np.stack([record[fingerprint] for fingerprint in fingerprints]) for record in records]


def _outputs(
    classifiers: Sequence[Classifier], inputs: Inputs, indices: Sequence[int]
) -> Generator[tuple[int, list[Logits]]]:
    """The index of each image in turn, and what each classifier gives for it."""
    if not indices:
        return
    workers = _workers(classifiers, len(indices))
    # Loaded here, one after the other: some runtimes redirect the process's standard error meanwhile.
    copies: SimpleQueue[list[Runner]] = SimpleQueue()
    for _ in range(workers):
        copies.put([classifier.load() for classifier in classifiers])

    def run(index: int) -> list[Logits]:
        x = inputs.input(index)
        copy = copies.get()
        try:
            return [runner(x)[0].reshape(-1) for runner in copy]
        finally:
            copies.put(copy)

    pending: deque[tuple[int, Future[list[Logits]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in indices:
                pending.append((index, pool.submit(run, index)))
                if len(pending) == _AHEAD * workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            for index, future in pending:
                yield index, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _workers(classifiers: Sequence[Classifier], images: int) -> int:
    loaded_bytes = _LOADED * sum(classifier.size_bytes for classifier in classifiers)
    return max(1, min(facts()["cpu_count"] or 1, _MAX_WORKERS, int(_MEMORY_BYTES / loaded_bytes), images))

"""The int8 stage: a network and what is asked of it -> one QDQ graph, with the verdicts on it.

Shared by all targets of one export. The budget of the accuracy guard is judged on the first target's runtime;
what the other targets reach is judged on theirs.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecnn.accuracy.evaluate import refuse_seen
from edgecnn.artifact import Artifact
from edgecnn.check import SQNR_FLOORS_DB, Check, lowered_graph, outputs_of
from edgecnn.cost import analyze
from edgecnn.data.calibration import Calibration, open_calibration
from edgecnn.data.fit import fit_labels
from edgecnn.data.labelled import LabelledSet
from edgecnn.data.open_set import open_set
from edgecnn.errors import BudgetError, ConfigError
from edgecnn.fetch.cache import data_dir
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner
from edgecnn.progress import Progress
from edgecnn.quantize.guard import Budget, Guarded, guard
from edgecnn.quantize.journal import Journal
from edgecnn.quantize.judge import Judged, Loader, judge_of
from edgecnn.quantize.portability import saturating_layers
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.quantize.race import race_on
from edgecnn.quantize.scheme import Scheme
from edgecnn.quantize.search import Searched, search
from edgecnn.scratch import scratch
from edgecnn.source.load import Network
from edgecnn.target import Target
from edgecnn.versions import tool_versions

Place = tuple[Target, ModuleType]
"""A target and its back end."""

_TIME_BUDGET_S = 600.0
# So many images leave four to be kept aside (edgecnn.quantize.quantize).
_ENOUGH = 16


@dataclass(frozen=True)
class Int8Options:
    """How int8 is made, and what it must hold."""

    calibration: str | Path | None = None
    """Images that decide the ranges; None for the photographs in the package."""
    data: str | Path | None = None
    """Labelled images that a budget or a search is judged on."""
    max_drop: float | None = None
    """Points of top-1 that may be lost."""
    min_agreement: float | None = None
    """Share of images whose class must stay, from 0 to 1."""
    time_budget_s: float | None = None
    """Seconds for guard or search; None for ten minutes."""
    search: bool = False
    """Whether schemes are tried."""
    portable: bool = False
    """Whether x86 CPUs without VNNI must compute the same."""

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        words = []
        for name, value in asdict(self).items():
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            if value is True:
                words.append(option)
            elif value not in (None, False):
                words += [option, str(value)]
        return words

    @property
    def budget(self) -> Budget | None:
        """What must hold, None where nothing was asked."""
        if self.max_drop is None and self.min_agreement is None:
            return None
        return Budget(self.max_drop, self.min_agreement)

    def check(self, precision: str) -> None:
        """Refuse what contradicts itself, before any work is done.

        Raises:
            ConfigError: options of int8 for another precision, or a judgement without images.
        """
        if self.words and precision != "int8":
            raise ConfigError(
                f"{self.words[0]} is given, but {precision} has no use for it",
                hint=f"add --precision int8, or leave {self.words[0]} out",
            )
        needs = self.budget is not None or self.search
        if needs and self.data is None:
            raise ConfigError(
                "on which images shall accuracy be judged?",
                hint="add --data: a folder of class folders, a CSV file, or a named set",
            )
        if not needs and self.data is not None:
            raise ConfigError(
                "--data is given, but nothing is judged on it",
                hint="add --max-drop, --min-agreement or --search; `edgecnn eval` measures a bundle",
            )
        if self.time_budget_s is not None and not self.time_budget_s > 0:
            raise ConfigError("--time-budget is not above 0 seconds", hint="leave it out for ten minutes")


@dataclass(frozen=True)
class Int8:
    """The int8 graph of one export, and how it came about."""

    graph: Graph = field(repr=False)
    """The QDQ graph."""
    check: Check
    """Against the float graph on calibration images, or against the file that it came from."""
    calibration: Calibration | None = field(default=None, repr=False)
    """None for a file that was quantised elsewhere."""
    scheme: Scheme | None = None
    """None for a file that was quantised elsewhere."""
    data: LabelledSet | None = field(default=None, repr=False)
    """What was judged on; None where nothing was."""
    searched: Searched | None = field(default=None, repr=False)
    """What was tried, where a search was asked."""
    guarded: Guarded | None = field(default=None, repr=False)
    """What the accuracy guard did, where a budget was asked."""
    judged: Mapping[str, Judged] = field(default_factory=dict)
    """What each target reaches on the data, by the target's name; empty without a budget."""

    @property
    def judges_itself(self) -> bool:
        """Whether calibration had the user's own images, and enough to keep some of them aside.

        The photographs in the package may be unlike anything that such a network will see.
        """
        calibration = self.calibration
        return calibration is not None and not calibration.shipped and calibration.distinct >= _ENOUGH

    def over_budget(self, target: Target) -> bool:
        """Whether a target's artifact loses more than was allowed."""
        if self.guarded is None:
            return False
        return self.guarded.budget.excess(self.judged[target.name], self.guarded.float_top1) > 0

    def describe(self, target: Target) -> str:
        """What the accuracy guard reached on a target, without a full stop."""
        assert self.guarded is not None
        judged, guarded = self.judged[target.name], self.guarded
        count, of = len(guarded.scheme.float_layers), guarded.macs_share
        layers = f"{count} layers in float ({of:.1%} of the MACs)" if count else "every layer in int8"
        figures = f"{judged.agreement:.2%} keep their class"
        if judged.top1 is not None and guarded.float_top1 is not None:
            drop = 100 * (guarded.float_top1 - judged.top1)
            side = "below" if drop >= 0 else "above"
            figures = f"top-1 {judged.top1:.2%}, {abs(drop):.2f} points {side} fp32, and {figures}"
        holds = "is not met" if self.over_budget(target) else "holds"
        ended = "" if guarded.complete else "; the time budget ended the search"
        return f"the budget {holds} with {layers}: {figures}, on {judged.images} images{ended}"

    def budget_error(self, made: Sequence[tuple[Target, Artifact]]) -> BudgetError | None:
        """What is raised once all bundles are there, if one of them is over the budget."""
        missed = [(target, artifact) for target, artifact in made if self.over_budget(target)]
        if not missed:
            return None
        said = "; ".join(f"{target.name}: {self.describe(target)}" for target, _ in missed)
        best = ", ".join(str(artifact.path) for _, artifact in missed)
        assert self.guarded is not None
        more = "allow more with --max-drop or --min-agreement, or keep fp32"
        tried = (
            "no mixture of int8 and float holds it" if self.guarded.complete else "give it more --time-budget"
        )
        return BudgetError(
            f"{said} (the best is in {best})",
            hint=f"{tried}; {more}",
            artifacts=[artifact for _, artifact in made],
        )

    def to_json(self, target: Target) -> dict[str, Any]:
        """What the manifest of a target's bundle holds of it."""
        made: dict[str, Any] = {
            "calibration": None,
            "scheme": None if self.scheme is None else self.scheme.to_json(),
            "search": None if self.searched is None else self.searched.to_json(),
            "guard": None,
            "judged_on": None,
        }
        if self.data is not None:
            made["judged_on"] = {
                "name": self.data.name,
                "images": len(self.data),
                "sha256": self.data.sha256,
            }
        if self.calibration is not None:
            made["calibration"] = {
                "name": self.calibration.name,
                "images": len(self.calibration),
                "sha256": self.calibration.sha256,
                "fingerprints": list(self.calibration.fingerprints),
                "remarks": list(self.calibration.remarks),
            }
        if self.guarded is not None:
            made["guard"] = self.guarded.to_json() | {
                "reached": self.judged[target.name].to_json(),
                "met": not self.over_budget(target),
                "verdict": self.describe(target),
            }
        return made


def make_int8(network: Network, options: Int8Options, targets: Sequence[Place], progress: Progress) -> Int8:
    """Quantise a network, as the options say, for all targets of one export.

    Raises:
        ConfigError, DataError: images or options that cannot be used.
        ConversionError: an operator that has no int8 form.
        ParityError: too little of the network is left on the calibration images.
    """
    if network.qdq is not None:
        assert network.imported is not None
        if options.words:
            raise ConfigError(
                f"the file brings its own integers, so {options.words[0]} has no use",
                hint=f"leave {options.words[0]} out, or pass the float model",
            )
        return Int8(network.qdq, network.imported)
    calibration = open_calibration(options.calibration, network.weights.preprocess, progress)
    prepared = prepare(network.graph, calibration.images, progress)
    if options.data is not None:
        data = open_set(options.data, progress=progress)
        refuse_seen(data, calibration.fingerprints)
        return _judged(network, options, targets, prepared, calibration, data, progress)
    scheme = _portable(prepared, prepared.scheme, targets) if options.portable else prepared.scheme
    graph = prepared.qdq(scheme)
    return Int8(graph, _on_calibration(prepared, scheme, graph, calibration), calibration, scheme)


def _judged(
    network: Network,
    options: Int8Options,
    targets: Sequence[Place],
    prepared: Prepared,
    calibration: Calibration,
    data: LabelledSet,
    progress: Progress,
) -> Int8:
    """The int8 graph that search and guard settle on, within their time."""
    began, seconds = time.monotonic(), options.time_budget_s or _TIME_BUDGET_S
    outputs = math.prod(shape_of(network.graph.output)[1:])
    labels = fit_labels(data, network.weights.labels, outputs)[data.labels]
    preprocess = network.weights.preprocess
    journal = Journal.open(data_dir().with_name("guard"), network.graph, data.sha256, preprocess, labels)
    target, module = targets[0]

    def complete(scheme: Scheme) -> Scheme:
        return _portable(prepared, scheme, targets) if options.portable else scheme

    scheme = complete(prepared.scheme)
    searched, guarded, judged = None, None, {}
    with scratch("int8") as work:
        judge = judge_of(
            network.graph,
            data.inputs(preprocess),
            labels,
            load=_loader(target, module, Path(work)),
            runtime=_runtime(target, module),
            journal=journal,
            progress=progress,
        )
        if options.search:
            race = race_on(target, module, variant=network.variant, macs=analyze(network.graph).macs)
            share = seconds / 2 if options.budget is not None else seconds
            searched = search(
                prepared,
                judge,
                race,
                scheme=scheme,
                complete=complete,
                time_budget_s=share,
                progress=progress,
            )
            scheme = searched.chosen.scheme
        if options.budget is not None:
            guarded = guard(
                prepared,
                judge,
                options.budget,
                scheme=scheme,
                time_budget_s=max(seconds - (time.monotonic() - began), 1.0),
                progress=progress,
            )
            scheme = guarded.scheme
            judged[target.name] = guarded.reached
            for other, its_module in targets[1:]:
                load = _loader(other, its_module, Path(work))
                on_other = replace(judge, load=load, runtime=_runtime(other, its_module))
                reached = on_other(guarded.graph, progress=progress, what=f"judging on {other.name}")
                assert reached is not None
                judged[other.name] = reached
    graph = prepared.qdq(scheme)
    checked = _on_calibration(prepared, scheme, graph, calibration)
    return Int8(graph, checked, calibration, scheme, data, searched, guarded, judged)


def _portable(prepared: Prepared, scheme: Scheme, targets: Sequence[Place]) -> Scheme:
    """The scheme with weights that cannot saturate, where otherwise they could."""
    runtimes = [target.runtime for target, _ in targets]
    return replace(scheme, portable_layers=saturating_layers(prepared.qdq(scheme), runtimes))


def _on_calibration(prepared: Prepared, scheme: Scheme, graph: Graph, calibration: Calibration) -> Check:
    """The graph against the float graph on some calibration images; ``prepare`` has judged its own."""
    verdict, floor_db = prepared.verdict, SQNR_FLOORS_DB["int8"]
    which = "calibration images"
    if scheme == prepared.scheme and verdict.sqnr_db >= floor_db:
        return Check(
            "int8 graph",
            f"float graph on {which}",
            verdict.images,
            "sqnr_db",
            verdict.sqnr_db,
            floor_db,
            verdict.top1_agreement,
        )
    every = -(-len(calibration) // prepared.verdict.images)
    some = list(itertools.islice(calibration.images, 0, None, every))
    outputs = outputs_of(prepared.graph, graph, some)
    return lowered_graph(prepared.graph, graph, outputs, some, which)


def _runtime(target: Target, module: ModuleType) -> str:
    """What a graph's outputs depend on, beside graph and input."""
    return f"{target.runtime} {target.options} {tool_versions(module.PACKAGES)}"


def _loader(target: Target, module: ModuleType, folder: Path) -> Loader:
    """Compiles a graph for a target and loads it."""

    def load(graph: Graph) -> Runner:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            files = module.compile(graph, target, Path(place))
            run: Runner = module.load(files[0], target)
        return run

    return load

"""A bundle's report: what its manifest says, as verdicts and figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from edgecnn.accuracy.interval import Share
from edgecnn.bundle.write import describe_check, describe_ms, describe_size, describe_weights
from edgecnn.report.explain import Explanation
from edgecnn.report.report import Figure, Report, Verdict

HEALTHY_DB = 20.0
"""SQNR that int8 networks with trained weights usually reach."""
POOR_DB = 12.0
"""Below it about one answer in ten changes: tools that leave MobileNetV2 with 11.3 dB change 9.7 %."""
_UNLIKE_DB = 3.0
"""So much more SQNR on the calibration images than on others says that they are too few or too alike."""
_ACCURACY = "Accuracy"


def bundle_report(
    manifest: Mapping[str, Any],
    size_bytes: int,
    explanation: Explanation | None = None,
    verdicts: tuple[Verdict, ...] = (),
    figures: tuple[Figure, ...] = (),
) -> Report:
    """The report of an int8 bundle.

    Args:
        manifest: of the bundle; ``files`` is not needed.
        size_bytes: of the model files.
        explanation: what the graphs tell.
        verdicts: answers that the manifest does not hold, such as those of a guard, a search, an evaluation,
            on portability and on pay-off. Without one titled ``Accuracy`` the page says that it is open.
        figures: numbers to see before the manifest's own.
    """
    trained = not manifest["weights"]["random"]
    own = [_arithmetic(manifest), _fidelity(manifest), _calibration(manifest)]
    if trained and all(verdict.title != _ACCURACY for verdict in verdicts):
        own.append(
            Verdict(
                _ACCURACY,
                "open",
                "Not measured on labelled images. `edgecnn eval` with this bundle and `--data` does it, on "
                "images that calibration has not seen.",
            )
        )
    return Report(
        title=manifest["variant"],
        subtitle=f"{manifest['precision']} for {manifest['target']}",
        verdicts=(*(verdict for verdict in own if verdict is not None), *verdicts),
        figures=(*figures, *_figures(manifest, size_bytes, explanation)),
        explanation=explanation,
        checks=tuple(map(describe_check, manifest["checks"])),
        facts=_facts(manifest),
        trained=trained,
    )


def noise_share(sqnr_db: float) -> float:
    """The noise's root mean square over the signal's, from a signal-to-noise ratio."""
    return float(10 ** (-sqnr_db / 20))


def _checks(manifest: Mapping[str, Any], stage: str, against: str = "") -> dict[str, Any] | None:
    found = [c for c in manifest["checks"] if c["stage"] == stage and against in c["against"]]
    return found[-1] if found else None


def _kept(check: Mapping[str, Any]) -> Share:
    return Share(round(check["top1_agreement"] * check["images"]), check["images"])


def _arithmetic(manifest: Mapping[str, Any]) -> Verdict | None:
    check = _checks(manifest, "int8 artifact")
    if check is None:
        return None
    kept = _kept(check)
    graph = "int8 graph" if "int8" in check["against"] else "float graph, as near to it as the int8 graph is"
    return Verdict(
        "Arithmetic",
        "good",
        f"{manifest['model_file']} computes what was decided: its scores are {check['value']:.2f} steps of "
        f"their own scale from the {graph} (limit {check['limit']:.3g}), with the same class on {kept.hits} "
        f"of {kept.images} photographs.",
    )


def _fidelity(manifest: Mapping[str, Any]) -> Verdict | None:
    check = _checks(manifest, "int8 graph", "verification")
    which = "photographs that calibration has not seen"
    if check is None:
        check, which = _checks(manifest, "int8 graph", "calibration"), "of the calibration images"
    if check is None:
        return None
    sqnr_db, kept = float(check["value"]), _kept(check)
    moved = (
        f"On {kept.images} {which}, int8 keeps the class of {kept.hits} "
        f"and moves the scores by {100 * noise_share(sqnr_db):.1f} % of their size (SQNR {sqnr_db:.1f} dB)."
    )
    if manifest["weights"]["random"]:
        return Verdict("Fidelity", "good", f"{moved} Untrained weights often lose more than trained ones.")
    if sqnr_db >= HEALTHY_DB:
        return Verdict(
            "Fidelity", "good", f"{moved} Trained networks usually reach {HEALTHY_DB:g} dB and more."
        )
    advice = "calibrate on more images, like those it will see, or return the worst layers below to float"
    if sqnr_db >= POOR_DB:
        usual = f"That is less than the {HEALTHY_DB:g} dB that trained networks usually reach"
        return Verdict("Fidelity", "caution", f"{moved} {usual}: {advice}.")
    return Verdict("Fidelity", "problem", f"{moved} About one answer in ten changes at such noise: {advice}.")


def _calibration(manifest: Mapping[str, Any]) -> Verdict | None:
    calibration = manifest["calibration"]
    seen = _checks(manifest, "int8 graph", "calibration")
    unseen = _checks(manifest, "int8 graph", "verification")
    if calibration is None or seen is None or unseen is None:
        return None
    both = (
        f"The ranges come from {calibration['images']} images: {seen['value']:.1f} dB on some of these, "
        f"{unseen['value']:.1f} dB on others"
    )
    if seen["value"] - unseen["value"] > _UNLIKE_DB:
        few = "so they are too few, or too alike. Calibrate on more images, like those the network will see."
        return Verdict("Calibration", "caution", f"{both}, {few}")
    return Verdict("Calibration", "good", f"{both}. It holds on images that it has not seen.")


def _figures(
    manifest: Mapping[str, Any], size_bytes: int, explanation: Explanation | None
) -> tuple[Figure, ...]:
    found = []
    unseen, measured = _checks(manifest, "int8 graph", "verification"), manifest["measured"]
    guard = manifest.get("guard")
    if guard is not None:
        reached = guard["reached"]
        agree = round(reached["agreement"] * reached["images"])
        about = f"images of {manifest['judged_on']['name']} keep their class on {manifest['runtime']}"
        found.append(Figure(f"{agree} of {reached['images']}", about))
    elif explanation is not None and explanation.gallery is not None:
        kept = explanation.gallery.kept
        low, high = (round(100 * end) for end in kept.interval)
        found.append(
            Figure(
                f"{kept.hits} of {kept.images}",
                f"{explanation.gallery.which} keep their class (95 % interval {low} to {high} %)",
            )
        )
    if unseen is not None:
        found.append(
            Figure(f"{unseen['value']:.1f} dB", "signal to quantisation noise, on unseen photographs")
        )
    elif (seen := _checks(manifest, "int8 graph", "calibration")) is not None:
        found.append(Figure(f"{seen['value']:.1f} dB", "signal to quantisation noise, on calibration images"))
    if measured is not None:
        threads = f"{measured['threads']} thread{'s' * (measured['threads'] > 1)}"
        about = f"median of one inference, {threads}, {measured['cpu_model'] or measured['cpu_arch']}"
        if measured["steady"]:
            found.append(Figure(f"{describe_ms(measured['p50_ms'])} ms", about))
        else:
            found.append(Figure(f"≈ {measured['p50_ms']:.2g} ms", f"{about}; not steady"))
    return (*found, Figure(describe_size(size_bytes), "the model on disk"))


def _facts(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    calibration, measured = manifest["calibration"], manifest["measured"]
    found = [
        ("Weights", describe_weights(manifest["weights"])),
        ("Size", f"{manifest['params']:,} parameters, {manifest['macs']:,} multiply-accumulates"),
    ]
    if calibration is not None:
        found.append(("Calibration", f"{calibration['images']} images, SHA-256 {calibration['sha256']}"))
    if measured is not None:
        found.append(("Latency", f"{measured['reason']}; {measured['os']}"))
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return (
        *found,
        ("int8 graph", f"SHA-256 {manifest['graph_sha256']}"),
        ("Made with", versions),
        ("Command", shlex.join(manifest["command"])),
    )

"""What a GPU is to reach, and whether a report's measurements do."""

from __future__ import annotations

from typing import Any

LEAST_TIMES_SEEDVR2 = 6.2
LEAST_FPS_1080P = 40.0
LEAST_SHARE_OF_RATIO = 0.7
LEAST_SHARE_OF_DENSE_RATE = 0.5
LEAST_DB = {"float32": 50.0, "bfloat16": 40.0, "float16": 40.0}
"""Of a precision against float32's reference; float32 itself by the fast paths."""


def check_targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold a report's parts against the targets.

    Args:
        results: Of `gpu_report`, as far as measured.

    Returns:
        One row per target: `target`, `wanted`, `unit`, `got` (None if not measured), `reason`
        (why not) and `verdict`: "met", "missed" (also by running out of memory), "open", or
        "shrunken" where the model is.
    """
    stages = {
        (row["size_name"], row["routing"], row["decoder"]): row
        for row in results.get("stages", [])
        if "error" not in row
    }
    rows = [_against_seedvr2(results, stages), _speed_1080p(results, stages)]
    rows += [_routing_ratio(results, stages, name) for name in results["scale"]["sizes"]]
    rows += [_flex_rate(results), *_memory(results)]
    if not results["scale"]["is_full"]:
        # Whatever a shrunken model reaches, it is not this.
        rows = [row | {"verdict": "shrunken"} for row in rows]
    return rows + _quality(results)


def target_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The targets for people."""
    return [
        f"  {row['verdict']:8} {row['target']}: wanted {row['wanted']}, "
        + (row["reason"] if row["got"] is None else f"got {row['got']:.4g} {row['unit']}")
        for row in rows
    ]


def _row(
    target: str,
    least: float,
    unit: str,
    got: float | None,
    reason: str = "",
    *,
    sign: str = ">=",
    has_run_out: bool = False,
) -> dict[str, Any]:
    verdict = "missed" if has_run_out else "open"
    if got is not None:
        is_met = got >= least if sign == ">=" else got <= least
        verdict = "met" if is_met else "missed"
    return {
        "target": target,
        "wanted": f"{sign} {least:g} {unit}",
        "unit": unit,
        "got": got,
        "reason": reason,
        "verdict": verdict,
    }


def _why(results: dict[str, Any], part: str, otherwise: str) -> str:
    return results["errors"].get(part, otherwise if part in results else "not measured yet")


def _against_seedvr2(results: dict[str, Any], stages: dict[tuple, Any]) -> dict[str, Any]:
    ours, theirs, got = stages.get(("720p", "thirds", "wan")), results.get("seedvr2"), None
    reason = _why(results, "seedvr2", "no checkout was given with --compare")
    if theirs:
        reason = _why(results, "stages", "ours did not fit")
    if ours and theirs:
        got = theirs["seconds"] / ours["seconds"]
    return _row(
        "720p, transformer and Wan decoder, against SeedVR2-3B's encoder, transformer, decoder",
        LEAST_TIMES_SEEDVR2, "times", got, reason,
    )  # fmt: skip


def _speed_1080p(results: dict[str, Any], stages: dict[tuple, Any]) -> dict[str, Any]:
    row = stages.get(("1080p", "thirds", "tiny"))
    reason = _why(results, "stages", "did not fit")
    return _row(
        "1080p with the tiny decoder", LEAST_FPS_1080P, "frames/s", row and row["fps"], reason
    )


def _routing_ratio(results: dict[str, Any], stages: dict[tuple, Any], name: str) -> dict[str, Any]:
    decoder = "wan" if name == "720p" else "tiny"
    rows = [stages.get((name, routing, decoder)) for routing in ("global", "thirds")]
    got = None
    if all(rows):
        unrouted, routed = (row["stages"]["transformer"] for row in rows)
        counted = unrouted["tflop"] / routed["tflop"]
        got = unrouted["seconds"] / routed["seconds"] / counted
    reason = _why(results, "stages", "did not fit")
    target = f"{name}, routed against global: share of the counted ratio"
    return _row(target, LEAST_SHARE_OF_RATIO, "of it", got, reason)


def _flex_rate(results: dict[str, Any]) -> dict[str, Any]:
    rows = [row for row in results.get("attention", []) if row["backend"] == "flex"]
    got = min((row["share_of_dense_rate"] for row in rows), default=None)
    return _row(
        "FlexAttention on the tokens it touches, of dense attention's rate",
        LEAST_SHARE_OF_DENSE_RATE, "of it", got,
        _why(results, "attention", "FlexAttention runs on CUDA only"),
    )  # fmt: skip


def _quality(results: dict[str, Any]) -> list[dict[str, Any]]:
    found, reason = results.get("quality", {}), _why(results, "quality", "not computed")
    rows = []
    for decoder in ("wan", "tiny"):
        for dtype, least in LEAST_DB.items():
            values = [db for name, db in found.get(decoder, {}).items() if name.startswith(dtype)]
            target = f"{decoder} decoder, {dtype}, the worst backend against the reference"
            rows.append(_row(target, least, "dB", min(values, default=None), reason))
    return rows


def _memory(results: dict[str, Any]) -> list[dict[str, Any]]:
    if "memory" not in results:
        reason = _why(results, "memory", "not measured")
        return [_row("peak memory on smaller GPUs", 0, "GiB", None, reason, sign="<=")]
    rows = []
    for row in results["memory"]:
        gib = row["budget_bytes"] / 2**30
        peak = row.get("peak_bytes")
        reason = row.get("reason", "")
        if peak is None and results["scale"]["is_full"] and not reason:
            reason = "planned only"
        sizes = " to ".join("x".join(map(str, size)) for size in row["sizes"])
        target = f"{sizes} on {gib:g} GiB: peak memory"
        got = None if peak is None else peak / 2**30
        has_run_out = row.get("has_run_out", False)
        if got is not None and row["tile"] != row["plan"]["tile"]:
            # What fits after the tile was halved is not what was planned.
            planned, used = (
                f"{tile[1]}x{tile[0]} px" for tile in (row["plan"]["tile"], row["tile"])
            )
            got, has_run_out = None, True
            reason = f"ran out of memory with the planned {planned} tiles, went on with {used}"
        rows.append(_row(target, gib, "GiB", got, reason, sign="<=", has_run_out=has_run_out))
    return rows

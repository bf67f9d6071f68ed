"""A fault campaign against the engine: `python -m tests.campaign [--long] [--only NAME]`.

Short form: what continuous integration runs. Exit code 1 if anything did not survive.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from .tally import Campaign, Fault

SEED = 7


def _warm(campaign: Campaign) -> None:
    """Do one run here, so that children find everything imported and measured."""
    import oasis_core

    from .clips import write_clip

    clip = write_clip(campaign.scratch / "warm.mkv")
    oasis_core.upscale_file(clip, campaign.scratch / "warm.mp4", model=campaign.upscaler, scale=2)


def _say(fault: Fault) -> None:
    sys.stdout.write(
        f"{fault.name}: {fault.survived} of {fault.tried} survived, "
        f"{fault.seconds:.0f} s{'; ' if fault.note else ''}{fault.note}\n"
    )
    for text in fault.failures[:99]:
        sys.stdout.write(f"  FAILED {text}\n")
    sys.stdout.flush()


def _arguments(parts: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--long", action="store_true", help="many cases: hours")
    parser.add_argument("--share", type=float, default=1.0, help="of the number of cases")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=sorted(parts), action="append", help="this part alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    parser.add_argument("--write-golden", action="store_true", help="store the outputs and stop")
    return parser.parse_args()


def _write_golden() -> int:
    from .golden import write_golden

    try:
        sys.stdout.write(write_golden() + "\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def main() -> int:
    """Run the campaign and print its table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Children are forked after torch is loaded: it must not have threads of its own by then.
    import torch

    torch.set_num_threads(1)
    import oasis_core

    from .parts import PARTS

    arguments = _arguments(list(PARTS))
    if arguments.write_golden:
        return _write_golden()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, too
    logging.disable(logging.CRITICAL)  # warnings about the damage done here
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="oasis-campaign-") as scratch:
        campaign = Campaign(
            upscaler=oasis_core.load("oasis-tiny", device="cpu", dtype="float32"),
            scratch=Path(scratch),
            is_long=arguments.long,
            seed=arguments.seed,
            share=arguments.share,
            on_fault=_say,
        )
        _warm(campaign)
        with suppress(KeyboardInterrupt):  # what was tried until then counts
            for name in arguments.only or PARTS:
                PARTS[name](campaign)
    faults = [fault.to_json() for fault in campaign.faults]
    if arguments.json is not None:
        about = {"version": oasis_core.__version__, "torch": torch.__version__}
        text = json.dumps({**about, "seed": arguments.seed, "faults": faults}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    failed = sum(fault["failed"] for fault in faults)
    tried = sum(fault["tried"] for fault in faults)
    sys.stdout.write(
        f"{tried} cases, {failed} failed, {time.perf_counter() - begun:.0f} s, "
        f"seed {arguments.seed}, oasis {oasis_core.__version__}, torch {torch.__version__}\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Where the bundled example tasks are: beside the source in a checkout, inside the package when installed."""

from __future__ import annotations

from pathlib import Path

import agentrft
from agentrft.errors import UserError


def find_example(name: str) -> Path:
    """The job file of an example task; raises UserError when it is not there."""
    package = Path(agentrft.__file__).parent
    # The wheel carries the quickstart's task (pyproject.toml, force-include); a checkout has them all.
    places = (package / "examples", package.parents[1] / "examples")
    for place in places:
        job = place / name / "job.yaml"
        if job.is_file():
            return job
    known = sorted({job.parent.name for place in places for job in place.glob("*/job.yaml")})
    raise UserError(
        f"there is no example task {name!r} in {places[0]} or {places[1]}; found: {', '.join(known) or 'none'}. "
        "Give one of these",
        param="task",
        code="example_not_found",
    )

"""How many minutes a run may be given; apart, since who asks for one loads no experiment. Pure."""

from __future__ import annotations

from subcortex.errors import InvalidRequest

#: A day.
MOST_MINUTES = 1440.0


def checked_minutes(minutes: float | None) -> float | None:
    """Return the minutes that a run was given as they are; None, which leaves it to the experiment, too.

    Raises:
        InvalidRequest: They are not above 0, more than a day, or no number.
    """
    if minutes is None or 0.0 < minutes <= MOST_MINUTES:
        return minutes
    raise InvalidRequest(
        f"a run cannot be given {minutes:g} minutes",
        hint=f"Give more than 0 and at most {MOST_MINUTES:g}, or none: then it takes what such a one does.",
        param="minutes",
    )

"""Inquiries, reports and samples as JSON, and the digest that a memo goes by. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from subcortex.errors import JournalError
from subcortex.experiments.experiment import Inquiry, Report
from subcortex.experiments.laboratory.record import Reading

_T = TypeVar("_T")
_DIGEST_DIGITS = 32


def inquiry_to_json(inquiry: Inquiry) -> dict[str, Any]:
    """Return an inquiry as the journal keeps it."""
    return _written(_inquiries(), inquiry)


def inquiry_from_json(data: Mapping[str, Any]) -> Inquiry:
    """Return the inquiry that was written so.

    Raises:
        JournalError: It is none, or a newer version's.
    """
    return _read(_inquiries(), data, "an inquiry")


def report_to_json(report: Report) -> dict[str, Any]:
    """Return a report as the journal keeps it; infinite ends of intervals become None."""
    return _written(_reports(), report)


def report_from_json(data: Mapping[str, Any]) -> Report:
    """Return the report that was written so; JournalError as for an inquiry."""
    return _read(_reports(), data, "a report")


def reading_to_json(reading: Reading) -> dict[str, Any]:
    """Return a sample as JSON, e.g. for a file of raw data."""
    return _written(_readings(), reading)


def reading_from_json(data: Mapping[str, Any]) -> Reading:
    """Return the sample that was written so; JournalError as for an inquiry."""
    return _read(_readings(), data, "a sample")


def digest_of(inquiry: Inquiry, method: int) -> str:
    """Return what the memo goes by: the same for the same question, measured the same way.

    Args:
        inquiry: ``depends_on`` is its birth certificate; prior, worth and cost do not matter.
        method: ``Experiment.method``.
    """
    asked = [inquiry.experiment, method, inquiry.subject, inquiry.quantity, inquiry.about]
    text = json.dumps([asked, dict(inquiry.depends_on)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


def _written(adapter: TypeAdapter[Any], value: object) -> dict[str, Any]:
    # Whatever an experiment put into its details becomes what JSON knows: sets lists, paths words.
    found = json.loads(adapter.dump_json(value, fallback=str))
    assert isinstance(found, dict)
    return found


def _read(adapter: TypeAdapter[_T], data: Mapping[str, Any], what: str) -> _T:
    try:
        # By way of JSON: lists become tuples and sets there, and nothing else is guessed.
        return adapter.validate_json(json.dumps(dict(data)))
    except (ValidationError, TypeError, ValueError) as error:
        raise JournalError(
            f"{what} in the journal cannot be read: {str(error).splitlines()[0]}",
            hint="It was written by another version; ask the question again.",
        ) from None


@cache
def _inquiries() -> TypeAdapter[Inquiry]:
    return TypeAdapter(Inquiry)


@cache
def _reports() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


@cache
def _readings() -> TypeAdapter[Reading]:
    return TypeAdapter(Reading)

"""Where a thought goes: a request checked and decided, with a daemon or without."""

from __future__ import annotations

from subcortex import drives as drive_files
from subcortex.config import Config
from subcortex.errors import InvalidRequest
from subcortex.mind import asked
from subcortex.mind.costs import cost_book
from subcortex.routing import Ask, Decision, TierView, complexity, decide, features
from subcortex.types import Route, ThinkRequest, TierState

#: Tokens an answer is expected to have when the caller sets no limit.
EXPECTED_TOKENS = 256


def decide_request(
    config: Config, drives: dict[str, drive_files.Drive], request: ThinkRequest, views: list[TierView]
) -> tuple[Decision, str | None]:
    """Check a request and decide its tier; returns the decision and the drive's proper name.

    Raises:
        InvalidRequest: Empty prompt, unknown drive or tier, a malformed message or tool.
    """
    asked.check(request)
    names = [tier.name for tier in config.tiers]
    if request.tier is not None and request.tier not in names:
        raise InvalidRequest(
            f"there is no tier {request.tier!r}", hint=f"The config has: {', '.join(names)}.", param="tier"
        )
    drive = drive_files.find(drives, request.drive) if request.drive else None
    wants_schema = request.response_schema is not None
    scored = complexity(features(request.messages, tools=bool(request.tools), schema=wants_schema))
    if request.complexity is not None:
        scored = type(scored)(request.complexity, ("as the caller says",))
    ask = Ask(
        complexity=scored,
        drive_name=drive.name if drive else None,
        drive_lean=drive.lean if drive else 0.0,
        drive_floor=drive.floor if drive else 0.0,
        tier=request.tier,
        deadline_s=request.deadline_s,
        expected_tokens=request.max_tokens or EXPECTED_TOKENS,
    )
    decision = decide(ask, views, deep_bias=config.routing.deep_bias, patience=config.routing.patience)
    return decision, drive.name if drive else None


def explain(config: Config, request: ThinkRequest) -> Route:
    """Return where a thought would go with no daemon up: every tier stopped, costs as known."""
    book = cost_book(config)
    views = [
        TierView(
            name=tier.name,
            rank=rank,
            state=TierState.READY if tier.engine == "remote" else TierState.STOPPED,
            cost=book.cost(tier.name),
            in_flight=0,
            waiting=0,
            max_concurrent=tier.max_concurrent,
        )
        for rank, tier in enumerate(config.tiers)
    ]
    return decide_request(config, drive_files.KnownDrives(config).current(), request, views)[0].route

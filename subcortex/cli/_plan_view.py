"""A plan for people: bars, tables, a chart, and flags to paste. Lines are text with styles beside it."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from subcortex.cli import _output

if TYPE_CHECKING:
    from subcortex.vram.amount import Amount
    from subcortex.vram.plan import Alternative, Plan, Shortfall
    from subcortex.vram.plan.compare import Option
    from subcortex.vram.plan.result import DevicePlan, TierPlan

#: Pieces of one line: text and the style it has where colours are wanted.
Line = list[tuple[str, str]]

#: Component → its letter where there are no colours, its colour, and what people call it.
PARTS: dict[str, tuple[str, str, str]] = {
    "weights": ("W", "blue", "weights"),
    "kv": ("K", "green", "KV cache"),
    "activations": ("A", "yellow", "activations"),
    "graphs": ("G", "magenta", "graphs"),
    "communication": ("N", "cyan", "communication"),
    "context": ("C", "bright_black", "context"),
    "cached": ("T", "bright_yellow", "kept by torch"),
    "asleep": ("S", "bright_blue", "asleep"),
}
_OTHER = ("O", "white", "")
_USED = ("#", "red", "others and driver")
_RESERVE = ("=", "bright_red", "reserve")
_LEFT = ("·", "dim", "left")
_BLOCK = "█"
_NARROWEST = 24
#: Of one model.
_MOST_NOTES = 4
_TIER_STYLES = {"awake": "bold green", "asleep": "bold cyan", "stopped": "bold"}


def gib(mib: float) -> str:
    """Return MiB as GiB with as many digits as matter."""
    value = mib / 1024
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show(lines: Iterable[Line]) -> None:
    """Print lines on stdout, with colours where they are wanted."""
    coloured = _output.coloured(sys.stdout)
    if not coloured:
        for line in lines:
            _output.say("".join(text for text, _ in line).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(width=_output.terminal_columns(), highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)


def plain(lines: Iterable[Line]) -> list[str]:
    """Return lines without their styles."""
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def plan_lines(plan: Plan, columns: int, *, coloured: bool) -> list[Line]:
    """Return everything there is to see of a plan.

    Args:
        plan: What to show.
        columns: Width of the terminal.
        coloured: Bars are coloured blocks; otherwise letters.
    """
    lines: list[Line] = [*_headline(plan), []]
    devices = [device for device in plan.devices if device.device >= 0 or _matters(plan, device)]
    for device in devices:
        lines += _device(device, columns, coloured=coloured)
    if len(devices) < len(plan.devices):
        host = plan.devices[-1]
        words = f"  {gib(host.need_mib)} needed of {gib(host.budget_mib)} GiB that may be planned"
        lines += [[("host memory", "bold"), (words, "")], []]
    lines += [*_legend(plan, columns, coloured=coloured), []]
    lines += [*_components(plan, devices, columns), []]
    if notes := note_lines([(tier.name, tier.notes) for tier in plan.tiers], columns):
        lines += [*notes, []]
    lines += [*_concurrency(plan), []]
    lines += _order(plan, columns)
    for tier in plan.tiers:
        lines += [[], *_flags(tier)]
    lines += [[(note, "yellow")] for note in plan.notes]
    return lines


def _headline(plan: Plan) -> list[Line]:
    awake = [tier.name for tier in plan.tiers if tier.mode.value == "awake"]
    count = len(plan.tiers)
    words = "It fits" if count == 1 else "All fit together" if len(awake) == count else "They fit in turns"
    sure = f" with probability {probability(plan.probability)} "
    lines: list[Line] = [[(words, "bold green"), (sure, ""), (f"(asked: {plan.asked_probability:g})", "dim")]]
    width = max(len(_output.inert_line(tier.name)) for tier in plan.tiers)
    for tier in plan.tiers:
        where = f"GPU {','.join(map(str, tier.gpus))}" if tier.gpus else "host memory"
        spread = f" ({tier.layout})" if len(tier.gpus) > 1 else ""
        line: Line = [(f"  {_output.inert_line(tier.name).ljust(width)} ", "bold")]
        line += [
            (f" {tier.mode.value}", _TIER_STYLES[tier.mode.value]),
            (f", {tier.engine} on {where}{spread}", ""),
        ]
        line.append((f", room for {requests(tier.requests)}", ""))
        if tier.requests + 0.05 < tier.wanted:
            line.append((f" of {tier.wanted}", "yellow"))
        line.append((f" × {tier.context_tokens} tokens", ""))
        lines.append(line)
    return lines


def _matters(plan: Plan, host: DevicePlan) -> bool:
    """Return whether host memory is more than an afterthought."""
    return len(plan.devices) == 1 or host.need_mib > 0.1 * host.budget_mib


def probability(value: float) -> str:
    """Return a probability without rounding a doubt away: 0.998, or > 0.999."""
    return "> 0.999" if value > 0.9995 else f"{int(value * 1000) / 1000:.3f}"


def requests(value: float) -> str:
    """Return a number of requests as short as it can be said."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _device(device: DevicePlan, columns: int, *, coloured: bool) -> list[Line]:
    on_host = device.device < 0
    name = "host memory" if on_host else f"GPU {device.device}"
    title: Line = [(name, "bold")]
    if not on_host:
        title.append((f"  {_output.inert_line(device.name)}", ""))
    title.append((f"  {gib(device.total_mib)} GiB: ", ""))
    title.append((f"{gib(device.need_mib)} needed, {gib(max(0.0, device.left_mib))} left", ""))
    title.append((f"  P {probability(device.probability)}", "dim"))
    width = max(_NARROWEST, columns - 2)
    return [title, *_bar(device, width, coloured=coloured), []]


def _bar(device: DevicePlan, width: int, *, coloured: bool) -> list[Line]:
    """Return a bar to scale, and below it who has which stretch."""
    pieces: list[tuple[str, tuple[str, str, str], float]] = []
    for share in device.shares:
        pieces += [
            (share.tier, PARTS.get(name, _OTHER), part.mean_mib) for name, part in share.components.items()
        ]
    pieces += [("", _USED, device.used_mib), ("", _RESERVE, device.reserve_mib)]
    total = max(device.total_mib, sum(mib for _, _, mib in pieces))
    line: Line = [("▕", "dim")]
    spans: list[tuple[str, int, int]] = []
    taken, start = 0.0, 0
    # Others and the reserve stand at the right end, what is left before them.
    left = total - sum(mib for _, _, mib in pieces)
    ordered = [*pieces[:-2], ("", _LEFT, left), *pieces[-2:]]
    for tier, (letter, style, _), mib in ordered:
        taken += mib
        end = min(width - 2, round(taken / total * (width - 2)))
        if end > start:
            fill = letter if letter == _LEFT[0] or not coloured else _BLOCK
            line.append((fill * (end - start), style))
            if spans and spans[-1][0] == tier:
                spans[-1] = (tier, spans[-1][1], end)
            else:
                spans.append((tier, start, end))
            start = end
    line.append(("▏", "dim"))
    return [line, _names(spans)]


def _names(spans: Sequence[tuple[str, int, int]]) -> Line:
    """Return the line below a bar that says whose each stretch is."""
    text, at = " ", 0
    for tier, start, end in spans:
        if not tier:
            continue
        room = end - start
        text += " " * (start - at)
        inside = _output.clipped(_output.inert_line(tier), max(1, room - 2)) if room > 2 else ""
        text += f"╰{inside.center(room - 2, '─')}╯" if room > 1 else "╵"
        at = end
    return [(text, "dim")]


def _legend(plan: Plan, columns: int, *, coloured: bool) -> list[Line]:
    seen = {name for device in plan.devices for share in device.shares for name in share.components}
    entries = [PARTS[name] for name in PARTS if name in seen] + [_USED, _RESERVE, _LEFT]
    lines: list[Line] = [[]]
    length = 0
    for letter, style, words in entries:
        mark = letter if letter == _LEFT[0] or not coloured else _BLOCK
        if length + len(words) + 4 > columns:
            lines.append([])
            length = 0
        lines[-1] += [(mark, style), (f" {words}  ", "")]
        length += len(words) + 4
    return lines


def _components(plan: Plan, devices: Sequence[DevicePlan], columns: int) -> list[Line]:
    """Return the table: a column a seat, a row a component, in as many tables as the width asks for."""
    seats = [(device, share) for device in devices for share in device.shares]
    names = [name for name in PARTS if any(name in share.components for _, share in seats)]
    first = max(len(PARTS[name][2]) for name in names) + 2 if names else 0
    heads = [(_where(device), _output.clipped(_output.inert_line(share.tier), 16)) for device, share in seats]
    width = max([14, *(max(map(len, head)) for head in heads)]) + 2
    at_once = max(1, (columns - first) // width)
    lines: list[Line] = []
    for begin in range(0, len(seats), at_once):
        some = seats[begin : begin + at_once]
        lines += [] if begin == 0 else [[]]
        for row in range(2):
            cells = "".join(head[row].rjust(width) for head in heads[begin : begin + at_once])
            title = "GiB, mean ± σ" if row == 1 and first >= 13 else ""
            lines.append([(title.ljust(first) + cells, "bold")])
        for name in names:
            if any(name in share.components for _, share in some):
                cells = "".join(_cell(share.components.get(name)).rjust(width) for _, share in some)
                lines.append([(PARTS[name][2].ljust(first), PARTS[name][1]), (cells, "")])
        lines.append(
            [
                ("together".ljust(first), "bold"),
                ("".join(_cell(s.total).rjust(width) for _, s in some), "bold"),
            ]
        )
        sure = "".join(gib(s.total.at(plan.asked_probability)).rjust(width) for _, s in some)
        lines.append([(f"at {plan.asked_probability:.4g}".ljust(first), ""), (sure, "")])
    return lines


def note_lines(notes: Iterable[tuple[str, Sequence[str]]], columns: int) -> list[Line]:
    """Return what is to be known of models' figures, by tier."""
    lines: list[Line] = []
    for tier, sentences in notes:
        for note in sentences[:_MOST_NOTES]:
            lines += _wrapped(f"{_output.inert_line(tier)}: ", note, "yellow", columns)
        if len(sentences) > _MOST_NOTES:
            more = f"{len(sentences) - _MOST_NOTES} more notes in --json"
            lines += _wrapped(f"{_output.inert_line(tier)}: ", more, "yellow", columns)
    return lines


def _where(device: DevicePlan) -> str:
    return "host" if device.device < 0 else f"GPU {device.device}"


def _cell(amount: Amount | None) -> str:
    if amount is None:
        return "-"
    if amount.sigma_mib < 0.5:
        return gib(amount.mean_mib)
    return f"{gib(amount.mean_mib)} ±{amount.sigma_mib / 1024:.2f}"


def _concurrency(plan: Plan) -> list[Line]:
    """Return requests at once by length: a table over all tiers, and a chart of each."""
    lines: list[Line] = [[("requests at once, by their length in tokens", "bold")]]
    name_width = max(len(_output.inert_line(tier.name)) for tier in plan.tiers)
    for tier in plan.tiers:
        most = max((count for _, count in tier.concurrency), default=1.0)
        for i, (length, count) in enumerate(tier.concurrency):
            name = _output.inert_line(tier.name) if i == 0 else ""
            bar = "▇" * max(1, round(24 * count / most))
            line: Line = [(f"  {name.ljust(name_width)}", "bold"), (f"{length:>9} ", ""), (bar, "green")]
            lines.append([*line, (f" {requests(count)}", "")])
    return lines


def _order(plan: Plan, columns: int) -> list[Line]:
    lines: list[Line] = [[("start, one at a time", "bold")]]
    for number, start in enumerate(plan.starts, 1):
        lines += _wrapped(f"  {number}. {_output.inert_line(start.tier)}: ", start.why, "bold", columns)
    for swap in plan.swaps:
        lines += _wrapped("  swap: ", str(swap), "cyan", columns)
    return lines


def _wrapped(head: str, words: str, style: str, columns: int, body: str = "") -> list[Line]:
    """Return words after a head, further lines below the first word."""
    rows = textwrap.wrap(_output.inert_line(words), max(20, columns - len(head)), break_on_hyphens=False) or [
        ""
    ]
    return [[(head, style), (rows[0], body)], *[[(" " * len(head), ""), (row, body)] for row in rows[1:]]]


def _flags(tier: TierPlan) -> list[Line]:
    """Return what to paste: a command for a shell, and keys for config.toml."""
    environment = [f"{name}={value}" for name, value in tier.launch.environment.items()]
    program = (
        ["vllm", "serve", tier.model] if tier.engine == "vllm" else ["llama-server", "--model", tier.model]
    )
    words = [*environment, _pasted((*program, *tier.launch.arguments))]
    title = f"# {_output.inert_line(tier.name)}, as a command"
    if tier.model_note:
        title += _output.inert_line(f"; {tier.model} is {tier.model_note}")
    lines: list[Line] = [[(title, "dim")], [(" ".join(words), "")]]
    lines.append([("# or in config.toml, below its [[tiers]]", "dim")])
    lines += [[(_output.inert_line(line), "")] for line in tier.launch.toml.splitlines()]
    return lines


def _pasted(words: Sequence[str]) -> str:
    """Return words as a shell takes them, harmless on a terminal."""
    return " ".join(shlex.quote(_output.inert_line(word)) for word in words)


def refusal_lines(
    short: Sequence[Shortfall], others: Sequence[Alternative], refused: Sequence[str], columns: int
) -> list[Line]:
    """Return what is short, and what would fit instead."""
    lines: list[Line] = []
    for words in (*refused, *map(str, short)):
        lines += _wrapped("  ", words, "", columns)
    if others:
        lines += [[], [("What fits, the least loss first", "bold")]]
    for number, other in enumerate(others, 1):
        lines += _wrapped(f"  {number}. ", other.words, "bold", columns)
        sure = probability(other.plan.probability)
        lines += _wrapped(
            "     ", f"gives up {other.gives_up}; fits with probability {sure}", "", columns, "dim"
        )
        for tier in other.plan.tiers:
            if tier.name in other.changed:
                # To be pasted, so on one line, however long.
                flags = _pasted(tier.launch.arguments)
                lines.append([(f"     {_output.inert_line(tier.name)}: ", "dim"), (flags, "")])
    return lines


def compare_lines(options: Sequence[Option], columns: int) -> list[Line]:
    """Return layouts side by side, and what the link makes of each."""
    header = ("LAYOUT", "WEIGHTS", "NEED", "KV TOKENS", "A TOKEN", "A PREFILL", "TOKENS/S")
    rows = [_compared(option) for option in options]
    table = _output.table(header, rows, right=range(1, len(header)))
    lines: list[Line] = [[(table[0], "bold")], *[[(line, "")] for line in table[1:]], []]
    name_width = max(len(option.name) for option in options)
    for option in options:
        style = "red" if option.refused or not option.fits else ""
        room = max(20, columns - name_width - 4)
        lines.append(
            [(f"  {option.name.ljust(name_width)}  ", "bold"), (_output.clipped(_said(option), room), style)]
        )
    words = "GiB a GPU: weights, and all but the cache; bytes that a rank sends; tokens/s of one request"
    lines += [[], *_wrapped("", words, "", columns, "dim")]
    return lines


def _said(option: Option) -> str:
    if not option.refused and not option.fits:
        return "does not fit with one request of full length"
    return _output.inert_line(option.link_words)


def _compared(option: Option) -> tuple[str, ...]:
    if option.refused:
        return option.name, "-", "-", "refused", "-", "-", "-"
    worst = max(option.gpus, key=lambda figures: figures.need_mib, default=None)
    weights, need = (gib(worst.weights_mib), gib(worst.need_mib)) if worst else ("-", "-")
    speed = option.tokens_per_s
    rate = f"{speed[0]:.0f}–{speed[1]:.0f}" if speed and option.fits else "-"
    tokens = str(option.kv_tokens) if option.fits else "-"
    return (
        option.name,
        weights,
        need,
        tokens,
        size(option.token.sent_bytes),
        size(option.prefill.sent_bytes),
        rate,
    )


def size(count: float) -> str:
    """Return bytes as a person writes them."""
    if count < 1:
        return "0"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""

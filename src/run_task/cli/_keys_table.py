"""What is seen of a stage by key: the keys that are worth a look, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from run_task.cli._grid import BAD, HEAD, cell
from run_task.observe._format import shown
from run_task.pipeline._key_watch import KeyShown, KeysShown, TaskOverKeys, Why

_COLUMN: Final = 13
"""How wide a task's column is at least, with what parts it from the next."""

_FIRST: Final = 28
"""How wide the key and the reason are at least."""


def over_keys(of_task: TaskOverKeys | None, keys: KeysShown) -> Text:
    """What a task gave for all keys, on a line."""
    if of_task is None:
        return Text()
    told = Text()
    if of_task.failed:
        told.append(f"{of_task.failed:,} fail", BAD).append(" of ")
    told.append(f"{keys.count:,} key{'' if keys.count == 1 else 's'}")
    if of_task.middle == of_task.middle:  # NaN: results are no numbers
        told.append(f", median {shown(of_task.middle)}")
    return told


def keys_table(
    title: str, keys: KeysShown, tasks: Sequence[str], most: int, width: int
) -> Table | None:
    """The keys of a stage that are worth a look, or are asked for.

    :param title: what stands above them
    :param tasks: the names of its tasks
    :param most: how many lines there is room for
    :param width: how many columns there is room for
    :return: None: there is not room for one
    """
    if most < 2:
        return None
    names = tasks[: max(1, (width - _FIRST) // _COLUMN)]
    told = list(_chosen(keys.keys, most - 1))
    left = 0
    if keys.matching is not None and keys.matching > len(told):
        told = told[: most - 2]
        left = keys.matching - len(told)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style=HEAD)
    table.add_column(Text(title), ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("", min_width=max(len(why.value) for why in Why), no_wrap=True)
    for name in names:
        table.add_column(Text(shown(name)), ratio=1, no_wrap=True, overflow="ellipsis")
    for key in told:
        why = Text(key.why.value, BAD if key.why is Why.FAILS else "")
        table.add_row(cell(shown(key.key)), why, *_results(key.results, names))
    if left or not told:
        table.add_row(f"and {left:,} more" if told else "none")
    return table


def _results(results: Mapping[str, object], names: Sequence[str]) -> list[Text]:
    return [
        cell(shown(results[name])) if name in results else Text("no result", BAD) for name in names
    ]


def _chosen(keys: Sequence[KeyShown], most: int) -> Sequence[KeyShown]:
    """The most telling of several: some of each kind, and first of all those that fail."""
    by_why = {why: [key for key in keys if key.why is why] for why in Why}
    fail, new = by_why[Why.FAILS], by_why[Why.NEW]
    kept = [*fail[: max(1, most // 2)], *by_why[Why.WANTED]][:most]
    kept += new[len(new) - min(len(new), most // 4) :]
    rest = [*by_why[Why.FAR_OFF], *by_why[Why.FURTHEST], *fail, *reversed(new)]
    kept += [key for key in rest if key not in kept]
    chosen = {id(key) for key in kept[:most]}
    return [key for key in keys if id(key) in chosen]

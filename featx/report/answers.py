"""What a run found, in a few sentences; the numbers are those of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from featx.report.leaderboard import baseline_name, chance_of, few_shot_boards, is_real, who
from featx.report.wording import interval_text, metric_name, score_text, short, signed
from featx.wording import counted

__all__ = ["answer_of_comparison", "answer_of_few_shot"]

_NAMED = 3


def answer_of_comparison(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the sentence that answers the question, and what else belongs to the answer."""
    metric, rows = results["protocol"]["metric"], _rows_of(results)
    baseline, best, *others = results["results"]
    score = f"{metric_name(metric)} {interval_text(metric, best['metrics'][metric])}"
    title = f"{who(best)} is best: {score}" if others else f"{who(best)} has {score}"
    sentences = []
    if equals := _named(others, "as good as the best"):
        sentences.append(f"As good, as far as these {rows} tell: {equals}.")
    if untold := _named(others, "not told"):
        sentences.append(f"These {rows} are too few to tell {who(best)} from: {untold}.")
    if others and not equals and not untold:
        all_others = "the other" if len(others) == 1 else f"all {len(others)} others"
        sentences.append(f"Better than {all_others} by the paired test.")
    sentences += _fusion_sentence(results)
    sentences.append(
        f"{_capital(baseline_name(results))} has {metric_name(metric)}"
        f" {score_text(metric, baseline['metrics'][metric]['mean'], digits=2)}."
    )
    return title, sentences


def answer_of_few_shot(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the sentence that answers the question, and what else belongs to the answer."""
    found = {(one["shots"], one["extractor"], one["head"]): one for one in results["results"]}
    best = [found[one["shots"], one["extractor"], one["head"]] for one in results["best"]]
    scores = [
        f"{interval_text('accuracy', one)} from {counted(one['shots'], 'label')} per class" for one in best
    ]
    guessing = (
        f"Guessing among {results['protocol']['ways']} classes has accuracy"
        f" {score_text('accuracy', chance_of(results), digits=2)}."
    )
    n_contenders = len({(one["extractor"], one["head"]) for one in results["results"]})
    if n_contenders == 1:
        return f"{who(best[0])} has accuracy {' and '.join(scores)}", [guessing]
    standings = [*_standings(results), guessing]
    if len({(one["extractor"], one["head"]) for one in best}) == 1:
        return f"{who(best[0])} is best: accuracy {' and '.join(scores)}", standings
    first, *others = best
    told = [
        f"From {counted(first['shots'], 'label')} per class {who(first)} is best: accuracy {_level(first)}",
        *(f"from {one['shots']} {who(one)}: {_level(one)}" for one in others),
    ]
    return "; ".join(told), standings


def _standings(results: Mapping[str, Any]) -> list[str]:
    """Return for each number of shots what is as good as the best; nothing of an old run."""
    sentences, boards = [], few_shot_boards(results)
    for board in boards:
        if equals := _named(board["rows"], "as good as the best"):
            sentences.append(f"{board['title']}, as good, as far as these episodes tell: {equals}.")
    if sentences or any(row["verdict"] is None for board in boards for row in board["rows"]):
        return sentences
    n_contenders = sum(row["verdict"] != "baseline" for row in boards[0]["rows"])
    others = "the other" if n_contenders == 2 else "the others"
    return [
        f"Better than {others} by the paired test{', at every number of shots' if len(boards) > 1 else ''}."
    ]


def _named(contenders: Sequence[Mapping[str, Any]], verdict: str) -> str:
    """Return the names of the contenders of this verdict, of many the first and how many more; empty for none."""
    names = [who(one) for one in contenders if one["verdict"] == verdict]
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return "; ".join([*names[:_NAMED], *more])


def _rows_of(results: Mapping[str, Any]) -> str:
    return "test samples" if results["protocol"]["split"] else "folds"


def _fusion_sentence(results: Mapping[str, Any]) -> list[str]:
    """Return what fusing gains: of several fusions the one that gains most, and is told from chance if any is."""
    gains = results["fusion_gains"]
    if not gains:
        return []
    real = [one for one in gains if is_real(one) and one["gain"] > 0]
    shown = max(real or gains, key=lambda one: one["gain"])
    labels = {(one["extractor"], one["head"]): one["label"] for one in results["results"]}
    fused = short(labels.get((shown["extractor"], shown["head"]), shown["extractor"]))
    part = short(labels.get((shown["best_part"], shown["head"]), shown["best_part"]))
    low, high = shown["ci95"] or (None, None)
    metric = results["protocol"]["metric"]
    interval = "" if low is None or high is None else f" ({signed(metric, low)} to {signed(metric, high)})"
    change, score = f"{signed(metric, shown['gain'])}{interval}", metric_name(metric)
    if real:
        return [f"Fusion gains: {fused} with {shown['head']} {change} {score} over {part}."]
    if shown["p_value"] is None:
        begin = f"These {_rows_of(results)} are too few to tell whether fusion gains"
    else:
        begin = "Fusion gains no more than chance" if len(gains) == 1 else "No fusion gains more than chance"
    which = f"{fused} with {shown['head']}" if len(gains) == 1 else f"the best, {fused} with {shown['head']},"
    return [f"{begin}: {which} has {change} {score} over {part}."]


def _level(one: Mapping[str, Any]) -> str:
    return score_text("accuracy", one["mean"], digits=2)


def _capital(text: str) -> str:
    """Return text that begins with a capital letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]

"""Writes the sample files beside it: `python examples/generate.py`. Seeded, so that they come out the same."""

import csv
import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMPLETIONS = 400
LABELS, GRADES, REDACTIONS = 1_500, 400, 100
TOPICS = ("billing", "shipping", "returns", "login", "refunds", "feedback")
REVIEWERS = ("ana", "bo", "chidi", "dagny")

random.seed(20_250_901)


def completion_id(number: int) -> str:
    """The id of a completion that the simulated service holds."""
    return f"chatcmpl-sample{number:04d}"


def missing_id(number: int) -> str:
    """The id of one that it never held."""
    return f"chatcmpl-missing{number:03d}"


def label(number: int) -> dict[str, Any]:
    """One change as a labelling tool would write it."""
    target = completion_id(random.randrange(COMPLETIONS))
    if number % 75 == 74:
        target = missing_id(number // 75)
    change: dict[str, Any] = {"completion_id": target}
    kind = random.random()
    if kind < 0.7:
        change["metadata"] = {"topic": random.choice(TOPICS), "reviewer": random.choice(REVIEWERS)}
    elif kind < 0.8:
        change["metadata"] = {f"note_{random.randrange(8)}": f"checked in round {number}"}
    elif kind < 0.9:
        change["metadata"] = {"draft": None, "topic": random.choice(TOPICS)}
    else:
        change["metadata"] = {"topic": random.choice(TOPICS), "stage": "final"}
        change["mode"] = "replace"
    if number % 3 == 0:
        change["change_id"] = f"label-{number}"
    return change


BAD_LINES = (
    '{"completion_id": "chatcmpl-sample0001", "metadata": {"topic": 7}}',
    '{"completion_id": "chatcmpl-sample0002", "metadata": {"topic": "billing"}',
    '{"completion_id": "../files", "metadata": {"topic": "billing"}}',
    '{"completion_id": "chatcmpl-sample0003", "metadata": {"topic": "a", "topic": "b"}}',
    '{"completion_id": "chatcmpl-sample0004", "metadata": {"%s": "x"}}' % ("k" * 65),
    '{"completion_id": "chatcmpl-sample0005", "metadata": {"topic": "%s"}}' % ("v" * 513),
    '{"completion_id": "chatcmpl-sample0006", "meta": {"topic": "billing"}}',
    '{"completion_id": "chatcmpl-sample0007", "metadata": {"topic": null}, "mode": "replace"}',
    "label this one as billing, please",
    json.dumps({"completion_id": "chatcmpl-sample0008", "metadata": {f"k{n}": "v" for n in range(17)}}),
)


def main() -> None:
    """Write all files."""
    with (HERE / "completions.jsonl").open("w") as file:
        for number in range(COMPLETIONS):
            metadata = {"draft": "true", "source": random.choice(("web", "mail", "phone"))}
            if number % 20 == 0:  # some are nearly full: a few changes will not fit
                metadata |= {f"field_{n}": str(n) for n in range(12)}
            file.write(json.dumps({"id": completion_id(number), "metadata": metadata}) + "\n")

    bad = dict(zip(range(70, LABELS, LABELS // len(BAD_LINES)), BAD_LINES, strict=False))
    with (HERE / "labels.jsonl").open("w") as file:
        for number in range(LABELS):
            file.write(bad.get(number) or json.dumps(label(number)))
            file.write("\n")

    with (HERE / "grades.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["completion_id", "change_id", "grade", "comment"])
        for number in range(GRADES):
            row = [completion_id(number), f"grade-{number}", random.choice("ABCDF"), random.choice(("", "see ticket"))]
            rows.writerow([*row, "one cell too many"] if number in {123, 321} else row)

    with (HERE / "redactions.jsonl").open("w") as file:
        for number in range(REDACTIONS):
            change = {"completion_id": completion_id(number * 4), "metadata": {"source": None, "redacted": "true"}}
            file.write(json.dumps(change) + "\n")


if __name__ == "__main__":
    main()

"""The results of `mutmut`: enough mutants are killed, and each survivor is listed as equivalent.

`equivalent.yaml` names those, by function and by the line that the fault makes, each with the reason why no test can
tell it from the code as it is. The command fails on one that is found and not named, and on one that is named and not
found.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
LEAST_NOTICED = 0.90
_NOTICED = frozenset({"killed", "timeout", "segfault", "caught by type check"})
_MUTMUT = str(Path(sys.executable).parent / "mutmut")

# By function, such as worker.changes.fold.x_fold: the line that a fault makes, and why that changes nothing.
Reasons = Mapping[str, Mapping[str, str]]


def complaints(found: Mapping[str, str], lines: Mapping[str, str], reasons: Reasons) -> list[str]:
    """Tell what is wrong.

    Args:
        found: what came of each fault, by its name.
        lines: the line that each fault makes that was not noticed, by the fault's name.
    """
    noticed = sum(word in _NOTICED for word in found.values())
    wrong = []
    if not found or noticed < LEAST_NOTICED * len(found):
        wrong.append(f"{noticed:,} of {len(found):,} faults were noticed: fewer than {LEAST_NOTICED:.0%}")
    met = set()
    for name, line in sorted(lines.items()):
        function = _function(name)
        if line in reasons.get(function, {}):
            met.add((function, line))
        else:
            wrong.append(f"{name} ({found[name]}): no test notices, and no reason is given: {line}")
    for function, named in reasons.items():
        wrong += [f"{function}: not found any more: {line}" for line in named if (function, line) not in met]
    return wrong


def made_line(difference: str) -> str:
    """The lines that a fault makes, of a unified diff; without their indentation."""
    added = re.findall(r"^\+(?!\+\+)(.*)", difference, re.MULTILINE)
    return " ".join(line.strip() for line in added)


def _function(name: str) -> str:
    return name.rpartition("__mutmut_")[0]


def _found() -> dict[str, str]:
    done = subprocess.run([_MUTMUT, "results", "--all", "true"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^\s*(\S+__mutmut_\d+): (.+)$", done.stdout, re.MULTILINE))


def _table(found: Mapping[str, str]) -> Iterable[str]:
    all_of, noticed = Counter[str](), Counter[str]()
    for name, word in found.items():
        module = name.rpartition(".")[0]
        all_of[module] += 1
        noticed[module] += word in _NOTICED
    for module, count in sorted(all_of.items()):
        yield f"{noticed[module] / count:6.1%}  {noticed[module]:5,} of {count:5,}  {module}"


def main() -> int:
    """Run the command; gives the exit code."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # noqa: PLC0415 -- slow, and the rest does not need it

    found = _found()
    lines = {name: made_line(get_diff_for_mutant(name)) for name, word in found.items() if word not in _NOTICED}
    reasons: Reasons = yaml.safe_load(EQUIVALENT.read_text()) or {}
    wrong = complaints(found, lines, reasons)
    print(*_table(found), *wrong, f"{len(found):,} faults, {len(wrong)} complaints", sep="\n")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

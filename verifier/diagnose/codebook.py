"""Every code a cause can have, with what it means and how to mend it: `codes.toml`.

Most codes are made of an operator's or a tensor's name and what is wrong with it. Those stand there as patterns, in
which a word in capitals stands for a name: `OPERATOR-missing` for `relu-missing`. A code has to stand there: a test
looks for others. `python -m verifier.diagnose.codebook docs/causes.md` writes them into the page.
"""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import groupby
from pathlib import Path
from typing import NamedTuple


class Code(NamedTuple):
    """A code or a pattern of codes, what it says, how to mend it, and some that a pattern stands for."""

    family: str
    code: str
    meaning: str
    fix: str
    examples: tuple[str, ...] = ()


def listed() -> tuple[Code, ...]:
    """All of them, by family."""
    text = Path(__file__).with_name("codes.toml").read_text(encoding="utf-8")
    return tuple(Code(**each) for each in tomllib.loads(text)["code"])


def known(code: str) -> Code | None:
    """The entry of a code that was given: itself, or the pattern that says most of what is wrong; None for none."""
    entries = listed()
    exact = (each for each in entries if code in (each.code, *each.examples))
    fitting = (each for each in entries if re.fullmatch(re.sub("[A-Z]+", "[a-z0-9_-]+", each.code), code))
    return next(exact, None) or max(
        fitting, key=lambda each: len(re.sub("[A-Z]+", "", each.code)), default=None
    )


_HEAD = """\
## The codes

<!-- from here on written by: python -m verifier.diagnose.codebook docs/causes.md -->

A word in capitals stands for a name. An operator goes by torch's name with dashes, without its number of dimensions;
some are shortened: `conv`, `maxpool`, `avgpool`, `batchnorm`, `layernorm`, `groupnorm`, `instancenorm`, `rmsnorm`,
`attention`, and `residual` for an addition. A tensor goes by the name of the argument it is given as: `weight`,
`bias`.
"""


def page() -> str:
    """All codes as Markdown."""
    parts = [_HEAD]
    for family, group in groupby(listed(), key=lambda each: each.family):
        entries = list(group)
        parts.append(f"### {family}\n\n| code | meaning | fix |\n| --- | --- | --- |")
        parts.extend(f"| `{each.code}` | {each.meaning} | {each.fix} |" for each in entries)
        parts.extend(
            f"\n`{each.code}`: {', '.join(f'`{example}`' for example in each.examples)} and others."
            for each in entries
            if each.examples
        )
        parts.append("")
    return "\n".join(parts)


def main(file: Path) -> None:
    """Write the codes anew into a page that has them at its end."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.partition("## The codes\n")[0] + page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

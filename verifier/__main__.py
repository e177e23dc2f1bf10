"""`python -m verifier` and the console script `verifier`."""

from __future__ import annotations

import sys

from verifier.border import startup

startup.listen()  # this module is imported by nobody but the command


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    try:
        from verifier.cli import app  # noqa: PLC0415 - importing this module must cost nothing

        app()
    except ModuleNotFoundError as error:  # 1 would read as diverged
        sys.stderr.write(f"verifier: {error.name} is not installed. Install the package: pip install .\n")
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()

"""`python -m verifier` and the console script `verifier`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    from verifier.cli import app  # noqa: PLC0415 - importing this module must cost nothing

    app()


if __name__ == "__main__":
    main()

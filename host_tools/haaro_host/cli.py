"""The `haaro` command: one door to the home agent, the lab and the router's status."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=True)


def main() -> None:
    """Console script entry."""
    app()

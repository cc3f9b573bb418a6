"""`haaro completion SHELL`: the lines that make a shell complete haaro's commands and sites."""

from enum import StrEnum

import typer
from typer.completion import get_completion_script

_HELP = {
    "bash": 'eval "$(haaro completion bash)", in ~/.bashrc',
    "zsh": 'eval "$(haaro completion zsh)", in ~/.zshrc after compinit',
    "fish": "haaro completion fish > ~/.config/fish/completions/haaro.fish",
}


class ShellName(StrEnum):
    """The shells that can be completed in."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: ShellName = typer.Argument(help="bash, zsh or fish")) -> None:
    """Print what a shell has to read to complete `haaro`: commands, options, names of sites."""
    typer.echo(f"# {_HELP[shell.value]}")
    typer.echo(
        get_completion_script(
            prog_name="haaro", complete_var="_HAARO_COMPLETE", shell=shell.value
        ).strip()
    )

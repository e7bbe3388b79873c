"""Decides which module serves which command, and the exit code.

0 done, 1 failed with a one-line reason on stderr, 2 usage.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

import click

from swarm import __version__
from swarm.cli.session import printable
from swarm.errors import SwarmError, said

#: command → where it is, and its line in ``swarm --help`` (a module is imported only when it is used).
COMMANDS: Mapping[str, tuple[str, str]] = {
    "put": ("swarm.cli.blobs:put", "Store files; prints their ids."),
    "get": ("swarm.cli.blobs:get", "Fetch a blob, verified and resumable."),
    "stat": ("swarm.cli.blobs:stat", "Show size, type and holders of a blob."),
    "ls": ("swarm.cli.tree:ls", "List a directory of the tree."),
    "find": ("swarm.cli.tree:find", "List every path under a prefix."),
    "rm": ("swarm.cli.blobs:rm", "Delete a blob, here or everywhere."),
    "status": ("swarm.cli.nodes:status", "Show whether the node is ready, and why not."),
    "peers": ("swarm.cli.nodes:peers", "Show the peers of the node."),
    "join": ("swarm.cli.nodes:join", "Make a node greet another one."),
    "verify": ("swarm.cli.blobs:verify", "Check a local file, or a node's copy, against its id."),
    "pki": ("swarm.cli.pki:pki", "Make and look at certificates."),
    "demo": ("swarm.cli.demo:demo", "Four nodes on this machine show what swarm does."),
    "import": ("swarm.cli.adopt:import_", "Adopt the store of a dtfc node."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="swarm")
def swarm() -> None:
    """Store, fetch and look after large immutable files on a swarm node.

    A blob's id is its SHA-512. The node is the one at --url, or $SWARM_URL, or http://127.0.0.1:7040.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process."""
    try:
        code = swarm.main(arguments, prog_name="swarm", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as e:
        e.show()
        code = 2
    except click.ClickException as e:
        code = _failed(e.format_message())
    except (click.Abort, KeyboardInterrupt):
        code = _failed("interrupted")
    except BrokenPipeError:
        # The reader of our output left; nothing more can be said there, not even by Python at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (SwarmError, OSError) as e:
        code = _failed(said(e) if isinstance(e, OSError) else str(e))
    sys.exit(code if isinstance(code, int) else 0)


def _failed(reason: str) -> int:
    click.echo(f"swarm: {printable(reason)}", err=True)
    return 1

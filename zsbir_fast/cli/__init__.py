"""The command line ``zsbir``: one module per command, loaded when that command runs."""

from zsbir_fast.cli.app import main as main

"""
The `tlsgate` command: what it says of itself, and how it refuses what cannot be.
"""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from tlsgate import __version__
from tlsgate.operator.main import main


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_commands_and_how_the_gate_is_started(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    assert "twistd tlsgate" in result.output
    assert "\n  demo " in result.output


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"tlsgate, version {__version__}\n"


@pytest.mark.parametrize(
    "options", [["--port", "65536"], ["--level", "strict"], ["--folder", __file__], ["--prot", "1"]]
)
def test_options_that_cannot_be_are_refused(options: list[str]) -> None:
    result = CliRunner().invoke(main, ["demo", *options])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--port", "--tls-port"])
def test_a_port_in_use_is_said_so_with_the_way_out(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ports = {"--port": "0", "--tls-port": "0", option: str(number)}
        arguments = [word for pair in ports.items() for word in pair]
        result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path / "run"), *arguments])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: port {number} on 127.0.0.1: Address already in use;"
        f" choose another with {option} PORT, 0 for any free one\n"
    )


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path / "file" / "run")])
    assert result.exit_code == 1
    assert result.output == f"Error: {tmp_path / 'file' / 'run'}: Not a directory\n"


def test_two_ports_are_two(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path), "--port", "2525", "--tls-port", "2525"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: port 2525 cannot be both: choose another with --port or --tls-port, 0 for any free one\n"
    )

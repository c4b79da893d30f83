"""
The `tlsgate` command.
"""

import click

from tlsgate import __version__
from tlsgate.operator.check import check
from tlsgate.operator.demo import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tlsgate")
def main() -> None:
    """
    Tools around the gate. The gate itself is started with `twistd tlsgate`.
    """


main.add_command(check)
main.add_command(demo)


if __name__ == "__main__":
    main()

"""`python -m weighin`, and the command `weighin`: the command line."""

import signal


def main() -> None:
    """Run the command line; an interrupt while it loads ends it without a word."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from weighin.cli import main as command

    command()


if __name__ == "__main__":
    main()

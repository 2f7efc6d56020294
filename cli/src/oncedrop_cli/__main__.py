"""`python -m oncedrop_cli` is `oncedrop`."""

from oncedrop_cli.main import run

if __name__ == "__main__":
    run()

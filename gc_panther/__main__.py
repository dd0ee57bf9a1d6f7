"""``python -m gc_panther``: the command line, where its script is not on the PATH."""

from gc_panther.cli import main

if __name__ == "__main__":
    main()

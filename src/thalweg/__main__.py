"""``python -m thalweg`` is the command ``thalweg``."""

from thalweg.dataflows.cli import main

if __name__ == "__main__":
    main()

"""``python -m edgevid``."""

from edgevid.cli import main

if __name__ == "__main__":
    main()

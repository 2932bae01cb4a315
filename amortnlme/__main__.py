"""`python -m amortnlme` is the command line."""

import sys

from amortnlme.cli import main

if __name__ == "__main__":
    sys.exit(main())

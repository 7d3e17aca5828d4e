"""`python -m pokegan` is the same program as `pokegan`."""

import sys

from pokegan.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m triplane.operator``."""

import sys

from triplane.operator.main import main

if __name__ == "__main__":
    sys.exit(main())

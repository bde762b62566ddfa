"""`python -m agentstate.dev.bench`: measures against servers that run already; the command starts them."""

from __future__ import annotations

import sys

import django


def main() -> None:
    django.setup()
    from agentstate.dev.bench import measuring

    sys.exit(measuring.run(sys.argv[1:]))


if __name__ == "__main__":
    main()

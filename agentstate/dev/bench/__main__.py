"""`python -m agentstate.dev.bench`: measures against servers that run already; the command starts them."""

from __future__ import annotations

import sys

import django


def main() -> None:
    django.setup()
    from agentstate.dev.bench import measuring
    from agentstate.dev.servers import CannotStart

    try:
        sys.exit(measuring.run(sys.argv[1:]))
    except CannotStart as refusal:
        sys.exit(f"The bench stopped. {refusal}")


if __name__ == "__main__":
    main()
